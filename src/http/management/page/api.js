// Questions to the server, with the viewer's key.

const KEY = "clipper-key";
const PAUSE_MIN_MS = 500;
const PAUSE_MAX_MS = 10000;
/** Longer than the server is ever silent. */
const SILENCE_MS = 15000;

/** Why a question was not answered. */
export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

export const key = () => sessionStorage.getItem(KEY);

export function setKey(value) {
  if (value) sessionStorage.setItem(KEY, value);
  else sessionStorage.removeItem(KEY);
}

function headers(more, withKey = key()) {
  return { ...(withKey ? { Authorization: `Bearer ${withKey}` } : {}), ...more };
}

async function cause(answer) {
  const text = await answer.text();
  try {
    return JSON.parse(text).cause ?? text;
  } catch {
    return text || `${answer.status} ${answer.statusText}`;
  }
}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, { cache: "no-store", credentials: "omit", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server cannot be reached. Is it running, and is this its port?");
  }
  if (!answer.ok) throw new Refused(answer.status, await cause(answer));
  return answer;
}

export async function get(path, signal) {
  return (await ask(path, { headers: headers(), signal })).json();
}

/** JSON, or text where the answer is no JSON. */
export async function post(path, body, { reason, withKey } = {}) {
  const json = { "Content-Type": "application/json" };
  if (reason) json["X-Clipper-Reason"] = reason;
  const answer = await ask(path, {
    method: "POST", headers: headers(json, withKey || key()),
    body: typeof body === "string" ? body : JSON.stringify(body),
  });
  const text = await answer.text();
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/**
 * Follows server-sent events until `signal` aborts, and comes back after whatever ends them.
 * `EventSource` cannot send a key.
 */
export async function follow(path, { signal, told, state }) {
  let pause = PAUSE_MIN_MS;
  while (!signal.aborted) {
    try {
      const answer = await ask(path, {
        headers: headers({ Accept: "text/event-stream" }), signal,
      });
      state("live");
      await read(answer, signal, (data) => {
        pause = PAUSE_MIN_MS;
        told(data);
      });
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 401 || error.status === 403) throw error;
      state("away", error.message);
    }
    if (signal.aborted) return;
    await new Promise((done) => { setTimeout(done, pause); });
    pause = Math.min(pause * 2, PAUSE_MAX_MS);
  }
}

async function read(answer, signal, told) {
  const reader = answer.body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { value, done } = await within(reader.read(), SILENCE_MS, () => reader.cancel());
    if (done) throw new Refused(0, "The server has ended the connection");
    text += decoder.decode(value, { stream: true });
    const events = text.split("\n\n");
    text = events.pop();
    // Only the latest counts.
    let last = null;
    for (const event of events) {
      const lines = event.split("\n");
      const data = lines.filter((line) => line.startsWith("data: "));
      if (!data.length) continue;
      last = JSON.parse(data.map((line) => line.slice(6)).join("\n"));
      if (lines.includes("event: end")) throw new Refused(0, last.reason);
    }
    if (last && !signal.aborted) told(last);
  }
}

async function within(promise, millis, late) {
  let timer;
  const silence = new Promise((_, refuse) => {
    timer = setTimeout(() => {
      late();
      refuse(new Refused(0, "The server is silent"));
    }, millis);
  });
  try {
    return await Promise.race([promise, silence]);
  } finally {
    clearTimeout(timer);
  }
}
