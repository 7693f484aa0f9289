// Starts the page: finds the token, and keeps asking for the pool.

import { Server, WrongTokenError } from "/page/ask.js";
import { announceChanges, element, showPool, timeOf } from "/page/pool.js";

const REFRESH_MS = 1000;
const byId = (id) => document.getElementById(id);

let server = null;
let shown = null;

async function refresh() {
  if (server === null) return;
  if (!document.hidden) await update();
  setTimeout(refresh, REFRESH_MS);
}

async function update() {
  try {
    const pool = await server.ask("/page/pool");
    if (shown !== null) announceChanges(shown, pool);
    shown = pool;
    showPool(pool);
    byId("moment").textContent = `Live, ${timeOf(new Date(pool.at))}`;
    byId("shown").hidden = false;
    document.body.classList.remove("stale");
  } catch (error) {
    if (error instanceof WrongTokenError) askForToken(error.message);
    else showOutage();
  }
}

function showOutage() {
  document.body.classList.add("stale");
  const since = shown === null ? "" : ` What it shows is of ${timeOf(new Date(shown.at))}.`;
  const text = `The server does not answer.${since}`;
  byId("moment").textContent = "Not live";
  byId("notices").replaceChildren(element("p", { class: "notice" }, text));
}

function askForToken(problem) {
  server = null;
  byId("token-problem").textContent = problem;
  byId("token-problem").hidden = !problem;
  byId("shown").hidden = true;
  byId("ask-token").hidden = false;
  byId("token").focus();
}

function tokenOf(fragment) {
  try {
    return decodeURIComponent(fragment);
  } catch {
    return fragment;
  }
}

function begin() {
  const token = tokenOf(location.hash.slice(1));
  if (!token) {
    askForToken("");
    return;
  }
  byId("ask-token").hidden = true;
  server = new Server(token);
  refresh();
}

byId("ask-token").addEventListener("submit", (event) => {
  event.preventDefault();
  location.hash = encodeURIComponent(byId("token").value.trim());
});
addEventListener("hashchange", () => location.reload());
begin();
