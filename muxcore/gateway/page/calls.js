// Lists the calls around a moment.

import { element, milliseconds, timeOf } from "/page/pool.js";

const MOST = 12;
let listed = "";

export function showCalls(journal, moment, choose) {
  const calls = journal === null ? [] : journal.callsAt(moment, MOST);
  const written = JSON.stringify([calls, calls.map((call) => call.ended <= moment)]);
  // Whoever is about to choose one keeps the focus while nothing changes.
  if (written === listed) return;
  listed = written;
  const list = document.getElementById("calls");
  const focused = document.activeElement?.dataset.call;
  list.replaceChildren(...calls.map((call) => element("li", {}, button(call, moment, choose))));
  if (focused) list.querySelector(`[data-call="${CSS.escape(focused)}"]`)?.focus();
  document.getElementById("no-calls").hidden = calls.length > 0;
}

function button(call, moment, choose) {
  const { id, began, ended, result, attempts } = call;
  const isOver = ended !== undefined && ended <= moment;
  const shown = element(
    "button",
    { "data-call": id, "aria-haspopup": "dialog", class: isOver && result !== "served" ? "lost" : "" },
    element("time", { datetime: new Date(began).toISOString() }, timeOf(new Date(began))),
    element("span", {}, attempts.join(" → ") || "no model"),
    element("span", {}, isOver ? result : "under way"),
    element("span", {}, isOver ? milliseconds(ended - began) : ""),
  );
  shown.addEventListener("click", () => choose(call));
  return shown;
}
