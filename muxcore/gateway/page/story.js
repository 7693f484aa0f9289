// Tells the story of a call, as `vibe-mux why` does.

import { element } from "/page/pool.js";

const STEP = /^ {2}(\d\d:\d\d:\d\d\.\d{3}) {2}(.*)$/;

export async function showStory(server, journal, call) {
  const { since } = journal.partOf(call);
  const { text } = await server.ask("/page/story", { journal: journal.number, since, call: call.id });
  const [title, ...lines] = text.split("\n");
  document.getElementById("story-title").textContent = title;
  document.getElementById("in-all").textContent = "";
  const steps = document.getElementById("steps");
  steps.replaceChildren();
  for (const line of lines) {
    const [, time, what] = STEP.exec(line) ?? [];
    if (time) steps.append(element("li", {}, element("time", {}, time), element("span", {}, what), element("ul")));
    else if (line.startsWith("   ")) steps.lastChild.lastChild.append(element("li", {}, line.trim()));
    else document.getElementById("in-all").textContent = line.trim();
  }
  for (const list of steps.querySelectorAll("ul:empty")) list.remove();
  document.getElementById("story").showModal();
}
