// Starts the page: finds the token, and keeps the page of now, or of the moment that is chosen.

import { Server, WrongTokenError } from "/page/ask.js";
import { showCalls } from "/page/calls.js";
import { Journal } from "/page/journal.js";
import { announceChanges, dateOf, element, showPool, timeOf } from "/page/pool.js";
import { showStory } from "/page/story.js";
import { drawTimeline } from "/page/timeline.js";

const REFRESH_MS = 1000;
const SECOND = 1000;
const STEPS = 1000;
const byId = (id) => document.getElementById(id);

let server = null;
let shown = null;
let journal = null;
/** The moment that the page shows, null for now. */
let moment = null;
/** Where the time line ends, null for now. */
let end = null;
let clockSkew = 0;
let isAsking = false;
let isLoading = false;
let isDrawing = false;

const now = () => Date.now() + clockSkew;
const latest = () => (journal === null || journal.isOwn ? now() : journal.latest);

/** Return from when to when the time line is. */
function span() {
  const chosen = Number(byId("span").value);
  const to = chosen === 0 ? latest() : (end ?? latest());
  const all = Math.ceil((to - (journal?.began ?? to - 1)) / SECOND) * SECOND;
  return { from: to - (chosen || all), to };
}

async function refresh() {
  if (server === null) return;
  if (!document.hidden && moment === null) await attempt(update);
  setTimeout(refresh, REFRESH_MS);
}

/** Do what asks the server; say so if it does not answer. */
async function attempt(what) {
  try {
    await what();
    document.body.classList.remove("stale");
  } catch (error) {
    if (error instanceof WrongTokenError) askForToken(error.message);
    else showOutage();
  }
}

async function update() {
  const pool = await server.ask("/page/pool");
  if (moment !== null) return;
  clockSkew = Date.parse(pool.at) - Date.now();
  const hasChanged = shown === null || factsOf(shown) !== factsOf(pool);
  if (shown !== null) announceChanges(shown, pool);
  show(pool);
  byId("shown").hidden = false;
  if (journal === null) await openJournals();
  else if (hasChanged) await journal.refresh(now());
  await load();
}

const factsOf = (pool) => JSON.stringify({ ...pool, at: null });

function show(pool) {
  shown = pool;
  showPool(pool);
  draw();
}

async function openJournals() {
  const found = await server.ask("/page/journals");
  const options = found.map((one) => {
    const [began, ended] = [dateOf(new Date(one.began)), dateOf(new Date(one.latest))];
    return new Option(one.is_own ? `This server, since ${began}` : `${began} to ${ended}`, one.number);
  });
  byId("journal").replaceChildren(...options);
  byId("journal-label").hidden = found.length < 2;
  byId("journal").onchange = () => attempt(() => open(found[byId("journal").selectedIndex]));
  if (found.length) await open(found[0]);
}

async function open(listed) {
  journal = new Journal(server, listed);
  end = null;
  moment = listed.is_own ? null : listed.latest;
  await journal.refresh(listed.latest);
  draw();
  await Promise.all([load(), moment === null ? update() : showMoment()]);
}

/** Load what is in sight of the journal, the newest first. */
async function load() {
  if (isLoading || journal === null) return;
  isLoading = true;
  try {
    for (let { from, to } = span(); await journal.loadOne(from, to); { from, to } = span()) draw();
  } finally {
    isLoading = false;
  }
}

/** Show the pool of the moment; of those that were passed over meanwhile, the last. */
async function showMoment() {
  if (isAsking) return;
  isAsking = true;
  try {
    for (let asked = null; moment !== null && asked !== moment; ) {
      asked = moment;
      const pool = await server.ask("/page/pool", { journal: journal.number, at: Math.round(asked) });
      if (moment !== null) show(pool);
    }
  } finally {
    isAsking = false;
  }
}

/** Return a step of the slider. A shorter one than a second would not be heard. */
const stepOf = (length) => Math.max(SECOND, length / STEPS);

function draw() {
  if (isDrawing) return;
  isDrawing = true;
  requestAnimationFrame(() => {
    isDrawing = false;
    const { from, to } = span();
    const slider = byId("slider");
    const shownMoment = moment ?? to;
    Object.assign(slider, { min: from, max: to, step: stepOf(to - from), value: shownMoment });
    slider.setAttribute("aria-valuetext", moment === null ? "now" : dateOf(new Date(moment)));
    byId("moment").textContent =
      moment === null ? `Live, ${timeOf(new Date(shown.at))}` : `As of ${dateOf(new Date(moment))}`;
    byId("live").hidden = moment === null;
    document.body.classList.toggle("then", moment !== null);
    const aliases = shown.models.map((model) => model.alias);
    if (journal !== null) drawTimeline(byId("canvas"), journal, aliases, { from, to }, latest());
    showCalls(journal, moment ?? Infinity, (call) => attempt(() => showStory(server, journal, call)));
  });
}

function choose(chosen) {
  end = span().to;
  moment = chosen;
  draw();
  attempt(showMoment);
}

function goLive() {
  moment = end = null;
  if (journal?.isOwn) attempt(update);
  else attempt(openJournals);
}

/** Move the time line by half of what it shows. */
function move(direction) {
  const { from, to } = span();
  const moved = Math.min(to + (direction * (to - from)) / 2, latest());
  end = moved;
  moment = Math.min(Math.max(moment ?? moved, moved - (to - from)), moved);
  draw();
  attempt(() => Promise.all([load(), showMoment()]));
}

function changeSpan() {
  if (moment !== null) end = Math.min(latest(), moment + Number(byId("span").value) / 2);
  draw();
  attempt(load);
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
  server = new Server(token);
  refresh();
}

byId("ask-token").addEventListener("submit", (event) => {
  event.preventDefault();
  location.hash = encodeURIComponent(byId("token").value.trim());
});
byId("slider").addEventListener("input", (event) => choose(Number(event.target.value)));
byId("live").addEventListener("click", goLive);
byId("earlier").addEventListener("click", () => move(-1));
byId("later").addEventListener("click", () => move(1));
byId("span").addEventListener("change", changeSpan);
byId("close-story").addEventListener("click", () => byId("story").close());
addEventListener("resize", () => shown !== null && draw());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => shown !== null && draw());
addEventListener("hashchange", () => location.reload());
begin();
