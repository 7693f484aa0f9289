// Draws a lane for each model: where it stands, by colour and height, and what is in flight.

const TOP = 6;
const LABEL = 18;
const BAND = 22;
const FLIGHT = 12;
const GAP = 12;
const LANE = LABEL + BAND + FLIGHT + GAP;
const AXIS = 22;
const SECOND = 1000;
const STEPS = [1, 2, 5, 10, 30, 60, 120, 300, 900, 1800, 3600, 10800, 21600, 43200, 86400].map(
  (seconds) => seconds * SECOND,
);
const HEIGHTS = { "open": 0.25, "on probation": 0.5, "spent": 0.7, "busy": 0.85, "disabled": 1 };
const TICK_PIXELS = 80;

const hours = new Intl.DateTimeFormat([], { timeStyle: "medium", hourCycle: "h23" });
const days = new Intl.DateTimeFormat([], {
  month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23",
});

/** Draw what the journal has of this time on the canvas; `now` is where the known ends. */
export function drawTimeline(canvas, journal, aliases, { from, to }, now) {
  const width = canvas.parentElement.clientWidth;
  const lanes = TOP + aliases.length * LANE;
  const height = lanes + AXIS;
  const scale = devicePixelRatio;
  const [pixelsWide, pixelsHigh] = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== pixelsWide || canvas.height !== pixelsHigh) {
    [canvas.width, canvas.height] = [pixelsWide, pixelsHigh];
    canvas.style.height = canvas.parentElement.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  const colours = coloursOf(canvas);
  const x = (time) => ((time - from) / (to - from)) * width;
  drawAxis(context, { from, to }, x, lanes, colours);
  aliases.forEach((alias, position) => {
    const top = TOP + position * LANE;
    context.fillStyle = colours.ink;
    context.font = "600 13px system-ui, sans-serif";
    context.fillText(alias, 2, top + 13);
    context.fillStyle = colours.line;
    context.fillRect(0, top + LABEL + BAND, width, 1);
    const segments = segmentsOf(journal, alias, { from, to: Math.min(to, now) });
    drawLane(context, segments, x, top + LABEL, colours);
  });
}

/** Yield from when to when a model stood how, as far as it is loaded. */
function* segmentsOf(journal, alias, { from, to }) {
  for (const part of journal.parts(from, to)) {
    const rows = part.lanes?.get(alias) ?? [];
    const last = Math.min(part.until, to);
    for (let place = 0; place < rows.length; place += 1) {
      const { at, standing, until, then, inFlight } = rows[place];
      const end = Math.min(place + 1 < rows.length ? rows[place + 1].at : last, last);
      if (end < from || at > to) continue;
      const turns = until === null ? end : Math.min(Math.max(until, at), end);
      yield { start: Math.max(at, from), end: turns, standing, inFlight };
      if (turns < end) yield { start: Math.max(turns, from), end, standing: then, inFlight };
    }
  }
}

function drawLane(context, segments, x, top, colours) {
  // Of what falls on one pixel, the worst standing shows, and any attempt.
  let [column, worst, flown] = [-1, -1, false];
  for (const { start, end, standing, inFlight } of segments) {
    const left = Math.floor(x(start));
    const width = Math.max(1, Math.ceil(x(end)) - left);
    const share = HEIGHTS[standing];
    if (left !== column || width > 1) [column, worst, flown] = [left, -1, false];
    if (share > worst) {
      worst = share;
      context.fillStyle = colours[standing];
      context.fillRect(left, top + BAND * (1 - share), width, BAND * share);
    }
    if (inFlight > 0 && !flown) {
      flown = width === 1;
      const deep = Math.min(FLIGHT - 2, 2 + 3 * inFlight);
      context.fillStyle = colours.accent;
      context.fillRect(left, top + BAND + 2, width, deep);
    }
  }
}

function drawAxis(context, { from, to }, x, top, colours) {
  const wanted = ((to - from) * TICK_PIXELS) / x(to);
  const step = STEPS.find((one) => one >= wanted) ?? STEPS.at(-1) * Math.ceil(wanted / STEPS.at(-1));
  const format = step >= 3600 * SECOND ? days : hours;
  // Ticks are at full hours of local time.
  const offset = new Date(to).getTimezoneOffset() * 60 * SECOND;
  context.font = "12px system-ui, sans-serif";
  let free = 0;
  for (let time = Math.ceil((from - offset) / step) * step + offset; time < to; time += step) {
    const left = Math.round(x(time));
    context.fillStyle = colours.line;
    context.fillRect(left, 0, 1, top);
    const text = format.format(time);
    const half = context.measureText(text).width / 2;
    context.fillStyle = colours.soft;
    if (left - half < free || left + half > x(to)) continue;
    context.fillText(text, left - half, top + 14);
    free = left + half + half / 2;
  }
}

function coloursOf(canvas) {
  const style = getComputedStyle(canvas);
  const names = ["open", "on probation", "busy", "spent", "disabled", "accent", "ink", "soft", "line"];
  return Object.fromEntries(
    names.map((name) => [name, style.getPropertyValue(`--${name.replaceAll(" ", "-")}`)]),
  );
}
