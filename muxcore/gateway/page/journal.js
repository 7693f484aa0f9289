// What the page knows of one journal: its parts, of which only those in sight are asked for.

export class Journal {
  #server;
  #parts = new Map();
  #asked = new Map();
  #ended = new Map();
  #attempts = new Map();
  #sorted = null;

  constructor(server, { number, began, latest, is_own: isOwn }) {
    Object.assign(this, { number, began, latest, isOwn });
    this.#server = server;
  }

  /** Ask which parts there are now. The last one may have grown. */
  async refresh(latest) {
    this.latest = Math.max(this.latest, latest);
    const starts = await this.#server.ask("/page/parts", { journal: this.number });
    starts.forEach(([since, from], position) => {
      const isLast = position === starts.length - 1;
      const known = this.#parts.get(since);
      const until = isLast ? Infinity : starts[position + 1][1];
      if (known) Object.assign(known, { until, isFresh: known.isFresh && known.until !== Infinity });
      else this.#parts.set(since, { since, from, until, lanes: null, isFresh: false });
    });
    if (starts.length) this.began = starts[0][1];
  }

  /** Load the newest part of this time that is not there. Return whether there was one. */
  async loadOne(from, to) {
    const wanted = this.parts(from, to).findLast((part) => !part.isFresh);
    if (!wanted) return false;
    wanted.isFresh = true;
    const query = { journal: this.number, since: wanted.since };
    this.#read(wanted, await this.#server.ask("/page/part", query));
    return true;
  }

  /** Return the parts of this time, in order. */
  parts(from, to) {
    const found = [...this.#parts.values()].filter((part) => part.from <= to && part.until >= from);
    return found.sort((one, other) => one.from - other.from);
  }

  /** Return the part in which this call began. */
  partOf(call) {
    return this.parts(call.began, call.began).findLast((part) => part.from <= call.began);
  }

  /** Return the last calls that began until a moment, the newest first. */
  callsAt(moment, most) {
    this.#sorted ??= [...this.#asked.values()].sort((one, other) => one.began - other.began);
    const begun = this.#sorted.slice(0, countUntil(this.#sorted, moment));
    return begun.slice(-most).reverse().map((call) => ({
      ...call,
      ...this.#ended.get(call.number),
      attempts: [...(this.#attempts.get(call.number)?.values() ?? [])],
    }));
  }

  // Parts are read in any order, and a part that grows again and again.
  #read(part, rows) {
    part.lanes = new Map();
    for (const [at, alias, standing, until, then, inFlight] of rows.standings) {
      if (!part.lanes.has(alias)) part.lanes.set(alias, []);
      part.lanes.get(alias).push({ at, standing, until, then, inFlight });
    }
    for (const [began, number, id] of rows.asked) this.#asked.set(number, { number, id, began });
    for (const [ended, number, result] of rows.ended) this.#ended.set(number, { ended, result });
    for (const [, attempt, alias, number] of rows.started) {
      if (!this.#attempts.has(number)) this.#attempts.set(number, new Map());
      this.#attempts.get(number).set(attempt, alias);
    }
    this.#sorted = null;
  }
}

/** Return how many of the calls, in the order of their beginning, begin until this moment. */
function countUntil(calls, moment) {
  let low = 0;
  let high = calls.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (calls[middle].began <= moment) low = middle + 1;
    else high = middle;
  }
  return low;
}
