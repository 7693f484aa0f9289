// Shows the pool at one moment: what it sums up to, and a card for each model.

const SIGNS = {
  "open": "●", "on probation": "◐", "busy": "◆", "spent": "◔", "disabled": "■",
};
const counts = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const shares = new Intl.NumberFormat("en", { style: "percent" });
const clock = new Intl.DateTimeFormat([], { timeStyle: "medium", hourCycle: "h23" });
const calendar = new Intl.DateTimeFormat([], { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });

/** Return an element with these attributes and children; texts are never markup. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export const timeOf = (moment) => clock.format(moment);
export const dateOf = (moment) => calendar.format(moment);
export const count = (number) => counts.format(number);
export const className = (standing) => standing.replaceAll(" ", "-");

export function dollars(cost) {
  const digits = cost === 0 || cost >= 0.01 ? 2 : 4;
  return `$${cost.toFixed(digits)}`;
}

export function milliseconds(time) {
  return time < 1000 ? `${Math.round(time)} ms` : `${(time / 1000).toFixed(1)} s`;
}

/** Return where a model stands, in words. */
export function standingText(model) {
  if (model.until === null) return model.standing;
  const until = `${model.standing} until ${timeOf(new Date(model.until))}`;
  return model.disabled_for ? `${until}: ${model.disabled_for}` : until;
}

export function showPool(pool) {
  const switchedOff = pool.enabled ? "" : " (switched off)";
  document.getElementById("mode").textContent = `Mode ${pool.mode}${switchedOff}`;
  document.getElementById("sums").replaceChildren(...sums(pool));
  document.getElementById("models").replaceChildren(...pool.models.map(card));
  const notices = pool.notices.map((text) => element("p", { class: "notice" }, text));
  document.getElementById("notices").replaceChildren(...notices);
}

function sums(pool) {
  const sum = (name) => pool.models.reduce((total, model) => total + model[name], 0);
  return [
    ["Available", `${pool.models_available} of ${pool.models_in_pool}`],
    ["In flight", String(sum("in_flight"))],
    ["Answered", count(sum("success_count"))],
    ["Tokens", count(sum("tokens_in") + sum("tokens_out"))],
    ["Cost", dollars(sum("cost"))],
  ].map(([name, value]) => fact(name, value));
}

const fact = (name, value) => element("div", {}, element("dt", {}, name), element("dd", {}, value));

function card(model, position) {
  const id = `model-${position}`;
  const title = element("h3", { id }, model.alias);
  if (model.is_fallback) title.append(" ", element("small", {}, "fallback"));
  const sign = element("span", { "aria-hidden": "true" }, SIGNS[model.standing]);
  const standing = element("p", { class: "standing" }, sign, ` ${standingText(model)}`);
  const shown = element("article", { "aria-labelledby": id, class: className(model.standing) });
  shown.append(title, standing, element("dl", {}, ...facts(model)), ...model.limits.map(limit));
  return shown;
}

function facts(model) {
  const read = model.tokens_in;
  const found = [
    ["In flight", String(model.in_flight)],
    ["Answered", count(model.success_count)],
    ["Rate limited", count(model.rate_limit_count)],
    ["Failed", count(model.fail_count)],
    ["Tokens in", count(read)],
    ["Tokens out", count(model.tokens_out)],
    ["Cost", dollars(model.cost)],
  ];
  if (read) found.push(["Cached", shares.format(model.tokens_cached / read)]);
  if (model.first_content_ms !== null) {
    found.push(["First content", milliseconds(model.first_content_ms)]);
  }
  return found.map(([name, value]) => fact(name, value));
}

/** What is left of a limit that the model announces. */
function limit({ kind, left, limit: most, full_at: fullAt }) {
  const full = fullAt === null ? "" : `, full at ${timeOf(new Date(fullAt))}`;
  const of = most === null ? "" : ` of ${count(most)}`;
  const label = element("label", {}, `${count(left)}${of} ${kind} left${full}`);
  if (most !== null) label.append(element("meter", { value: left, max: most, low: most / 5 }));
  return element("p", { class: "limit" }, label);
}

/** Say in words which models stand elsewhere than before, for those who cannot see it. */
export function announceChanges(before, pool) {
  const stood = new Map(before.models.map((model) => [model.alias, model.standing]));
  const changed = pool.models.filter((model) => stood.get(model.alias) !== model.standing);
  if (changed.length === 0) return;
  const lines = changed.map((model) => `${model.alias}: ${standingText(model)}`);
  document.getElementById("news").textContent = lines.join(". ");
}
