// Which page is shown, with whose key, and whether the server is there.

import { Refused, follow, get, key, setKey } from "./api.js";
import { application } from "./application.js";
import { changes } from "./changes.js";
import { h, renew, time } from "./dom.js";
import { model } from "./model.js";
import { overview } from "./overview.js";
import { predict } from "./predict.js";

const main = document.getElementById("main");
const state = document.getElementById("state");
let leaving = new AbortController();

const ROUTES = [
  [/^#?\/?$/, "Overview", overview],
  [/^#\/app\/([^/]+)$/, "Application", application],
  [/^#\/model\/([^/]+)\/([^/]+)$/, "Model", model],
  [/^#\/changes(?:\?.*)?$/, "Changes", changes],
  [/^#\/predict(?:\/([^/]+))?$/, "Try a prediction", predict],
];

/** Says whether what is shown is live; only a change is said. */
function say(is, why) {
  const text = is === "live" ? "Live" : `Not live: ${why ?? "asking again"}`;
  if (state.textContent !== text) state.textContent = text;
  state.className = is;
}

/** What a page is given: where to draw, what to follow, and who looks. */
function context(signal, you) {
  return {
    main, signal, you,
    /** Has pictures of a topic drawn as they come. */
    follow(query, told) {
      const path = `/admin/dashboard/stream${query}`;
      follow(path, {
        signal, state: say,
        told(picture) {
          say("live");
          document.getElementById("about").textContent = "";
          document.getElementById("about").append("As of ", time(picture.at_ms));
          told(picture);
        },
      }).catch((error) => failed(error));
    },
    failed,
  };
}

function failed(error) {
  if (error.name === "AbortError") return;
  if (!(error instanceof Refused)) {
    renew(main, h("h1", {}, "Something is wrong with this page"), h("p", {}, String(error)));
    throw error;
  }
  if (error.status === 401 || error.status === 403) signIn(error);
  else {
    say("away", error.message);
    main.replaceChildren(h("h1", {}, "The server does not answer"),
      h("p", { class: "empty" }, error.message),
      h("p", {}, h("button", { type: "button", click: show }, "Ask again")));
  }
}

/** Asks for a key, which is kept until this tab is closed. */
function signIn(error) {
  leaving.abort();
  state.textContent = "Not signed in";
  const field = h("input", { id: "key", type: "password", autocomplete: "off", required: true,
    spellcheck: "false", "aria-describedby": "key-why" });
  const form = h("form", { class: "sign-in", submit(event) {
    event.preventDefault();
    setKey(field.value.trim());
    show();
  } },
  h("label", { for: "key" }, "Key"), field, h("button", {}, "Sign in"));
  main.replaceChildren(
    h("h1", { tabindex: "-1" }, "A key is needed"),
    h("p", { id: "key-why" }, error.message),
    h("p", {}, "One of the role observe shows everything here, operate also undoes changes, ",
      "admin also makes predictions. ", h("code", {}, "clipper key add NAME --role observe"),
      " makes one. It stays in this tab and is forgotten with it."),
    form);
  field.focus();
}

function showYou(you) {
  const place = document.getElementById("you");
  place.replaceChildren();
  if (you.key) place.append(`Key ${you.key} (${you.role}) `);
  if (key()) {
    place.append(h("button", { type: "button", class: "quiet", click() {
      setKey(null);
      show();
    } }, "Sign out"));
  }
  if (you.prometheus_url && /^https?:/.test(you.prometheus_url)) {
    place.append(h("a", { href: you.prometheus_url, rel: "noreferrer" }, "Prometheus"));
  }
}

async function show() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const hash = location.hash || "#/";
  const found = ROUTES.find(([pattern]) => pattern.test(hash));
  const here = hash.split("?")[0].split("/").slice(0, 2).join("/");
  for (const link of document.querySelectorAll("nav a")) {
    const isHere = link.getAttribute("href") === here;
    if (isHere) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (!found) {
    document.title = "Not found \u2013 Clipper";
    main.replaceChildren(h("h1", {}, "There is no such page"),
      h("p", {}, h("a", { href: "#/" }, "The overview"), " has links to all."));
    return;
  }
  const [pattern, title, page] = found;
  const parts = pattern.exec(hash).slice(1).map((part) => part && decodeURIComponent(part));
  document.title = [...parts.filter(Boolean).slice(0, 1), title, "Clipper"].join(" \u2013 ");
  main.replaceChildren(h("h1", {}, title), h("p", { class: "empty" }, "Asking the server."));
  try {
    const you = await get("/admin/dashboard/you", signal);
    showYou(you);
    await page(context(signal, you), ...parts);
  } catch (error) {
    if (!signal.aborted) failed(error);
  }
}

addEventListener("hashchange", () => {
  show();
  // A new page is read from its beginning.
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
});
addEventListener("pagehide", () => leaving.abort());
addEventListener("pageshow", (event) => {
  if (event.persisted) show();
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
show();
