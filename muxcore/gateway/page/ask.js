// Asks the server. The token goes out only after the server has proven that it knows it: the
// port of a server that ended may be another program's by now.

export class WrongTokenError extends Error {}

const encoder = new TextEncoder();

export class Server {
  #token;

  constructor(token) {
    this.#token = token;
  }

  /** Return the JSON answer to a GET. Throw `WrongTokenError`, or another error. */
  async ask(path, values = {}) {
    await this.#expectProof();
    const query = new URLSearchParams(values).toString();
    const answer = await fetch(query ? `${path}?${query}` : path, {
      headers: { Authorization: `Bearer ${this.#token}` },
      cache: "no-store",
      redirect: "error",
    });
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.error?.message ?? `the server answers ${answer.status}`);
    return found;
  }

  async #expectProof() {
    // Only a secure context has it. A plain address on the network shows the token anyway.
    if (!globalThis.crypto?.subtle) return;
    const nonce = crypto.randomUUID().replaceAll("-", "");
    const answer = await fetch(`/proof?nonce=${nonce}`, { cache: "no-store", redirect: "error" });
    const { proof } = await answer.json();
    const key = await crypto.subtle.importKey(
      "raw", encoder.encode(this.#token), { name: "HMAC", hash: "SHA-256" }, false, ["verify"],
    );
    const signature = Uint8Array.from(proof.match(/../g) ?? [], (two) => parseInt(two, 16));
    for (const address of addresses()) {
      const text = encoder.encode(`server ${address} ${location.port || 80} ${nonce}`);
      if (await crypto.subtle.verify("HMAC", key, signature, text)) return;
    }
    throw new WrongTokenError("This is not the token of the server.");
  }
}

/** Return what the server may call its own address. */
function addresses() {
  const named = location.hostname.replace(/^\[|\]$/g, "");
  return named === "localhost" ? ["127.0.0.1", "::1"] : [named];
}
