// Keeps pages up to date, counts down, and takes keys. Every page works without it. Nothing is ever put into a page but
// what the server rendered, and only as parsed, inert nodes.
"use strict";

const body = document.body;
const skew = Number(body.dataset.now) - Date.now() / 1000;
const one = (selector) => document.querySelector(selector);
const all = (selector) => [...document.querySelectorAll(selector)];

// -- one-time addresses: the form does it, the script only saves a click

// Cookies are sent to every port of a host, storage belongs to one origin: a key that is kept here and shown with each
// form makes a cookie worthless to a page on another port.
function show(form, key) {
  const field = form.querySelector("input[name=key]") ?? form.appendChild(document.createElement("input"));
  Object.assign(field, { type: "hidden", name: "key", value: key });
}

const auto = one("form[data-auto]");
if (auto) {
  // The key that is there stays: any page can lead to this form, and logins that last were made with it.
  const bytes = [...crypto.getRandomValues(new Uint8Array(32))];
  const key = localStorage.getItem("key") || bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("");
  localStorage.setItem("key", key);
  show(auto, key);
  history.replaceState(null, "", location.pathname); // the token does not stay in the address
  auto.requestSubmit();
}

// What counts as read is said by this script, with the key: whoever has the cookie alone reads nothing for anybody.
const sheet = one(".sheet[data-seen]");
let told = null; // pending
let began = performance.now();

function tell(key) {
  const csrf = one("input[name=csrf]").value;
  const form = new URLSearchParams({ csrf, key, version: sheet.dataset.version });
  const done = () => {
    began = performance.now();
    told = null;
  };
  told = fetch(sheet.dataset.seen, { method: "POST", body: form, keepalive: true }).then(done, done);
}

if (sheet && localStorage.getItem("key")) tell(localStorage.getItem("key"));

one("#back")?.addEventListener("click", (event) => {
  if (!told) return;
  event.preventDefault();
  told.then(() => location.assign(event.target.href));
});

addEventListener("submit", (event) => {
  if (told) {
    event.preventDefault();
    told.then(() => event.target.requestSubmit(event.submitter));
    return;
  }
  const key = localStorage.getItem("key");
  if (key && event.target.querySelector("input[name=csrf]")) show(event.target, key);
});

// A form that was refused shows the call's page: it is kept up to date, and loaded again, as that.
const refused = location.pathname.match(/^(\/q\/[\w-]+)\/(approve|deny|break-glass|revoke)$/);
if (refused) history.replaceState(null, "", refused[1]);

// -- times

const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

function duration(seconds) {
  let left = Math.max(0, Math.floor(seconds));
  const words = [];
  for (const [size, unit] of UNITS) {
    const count = Math.floor(left / size);
    left -= count * size;
    if (count || unit === "s") words.push(`${count} ${unit}`);
    if (words.length === 2) break;
  }
  return words.length === 2 && words[1].startsWith("0 ") && !words[1].endsWith(" s") ? words[0] : words.join(" ");
}

function tick() {
  for (const node of all("[data-until]")) {
    const left = Number(node.dataset.until) - Date.now() / 1000 - skew;
    const text = duration(left);
    if (node.textContent !== text) node.textContent = text;
    node.classList.toggle("soon", left < 60);
  }
}

function localTimes() {
  for (const node of all("time[datetime]:not([title])")) {
    const at = new Date(node.dateTime);
    node.title = node.textContent;
    node.textContent = at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
  }
}

function reading() {
  let waiting = false;
  for (const button of all("button[data-ready-in]")) {
    const left = Number(button.dataset.readyIn) - (performance.now() - began) / 1000;
    if (left > 0) {
      waiting = true;
      button.disabled = true;
      button.dataset.held = "";
    } else if ("held" in button.dataset) {
      delete button.dataset.held;
      button.disabled = false;
    }
  }
  for (const note of all("[data-wait]")) note.hidden = !waiting;
  if (waiting) setTimeout(reading, 100);
}

// A button that the server disabled stays disabled.
for (const button of all("button[data-ready-in]:disabled")) delete button.dataset.readyIn;
setInterval(tick, 1000);
tick();
localTimes();
reading();

// -- live updates

let known = body.dataset.revision;
let wanted = false;
let busy = false;

function say(state) {
  const light = one("#live");
  if (!light) return;
  light.dataset.state = state;
  light.textContent = state === "on" ? "live" : "not live";
}

async function refresh() {
  if (busy) {
    wanted = true;
    return;
  }
  busy = true;
  try {
    const answer = await fetch(location.href, { headers: { "X-Part": "1" }, credentials: "same-origin" });
    if (new URL(answer.url).pathname === "/login") return location.assign("/login");
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    known = fresh.body.dataset.revision;
    for (const part of all("[data-part]")) put(part, fresh.getElementById(part.id));
    notice(fresh);
    localTimes();
    tick();
  } catch {
    say("off");
  } finally {
    busy = false;
    if (wanted) {
      wanted = false;
      setTimeout(refresh, 1000);
    }
  }
}

const rendered = new Map();

function put(part, fresh) {
  // The element stays, so that what is new in it is announced; what the server rendered as before is left alone.
  if (!fresh || rendered.get(part.id) === fresh.innerHTML) return;
  rendered.set(part.id, fresh.innerHTML);
  const focused = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  part.replaceChildren(...document.importNode(fresh, true).childNodes);
  if (focused) [...part.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
}

function notice(fresh) {
  const newer = fresh.querySelector(".sheet[data-version]");
  if (!sheet || !newer) return;
  const changed = one("#changed");
  if (changed && newer.dataset.version !== sheet.dataset.version) changed.hidden = false;
  const status = fresh.getElementById("status");
  const answer = one("[data-answer]");
  if (answer && status && status.dataset.state !== "open") answer.hidden = true;
}

if ("live" in body.dataset) {
  say("off");
  const stream = new EventSource("/events");
  stream.onopen = () => say("on");
  stream.onerror = () => say("off");
  stream.onmessage = (event) => {
    say("on");
    if (event.data !== known) refresh();
  };
  addEventListener("pagehide", () => stream.close());
  setInterval(() => {
    if (stream.readyState !== EventSource.OPEN) refresh();
  }, 15000);
}

// -- keys

const TYPING = "input, textarea, select, dialog[open]";

function move(step) {
  const links = all(".row > a");
  if (!links.length) return;
  const at = links.indexOf(document.activeElement);
  links[at < 0 ? (step > 0 ? 0 : links.length - 1) : Math.min(links.length - 1, Math.max(0, at + step))].focus();
}

const KEYS = {
  j: () => move(1),
  k: () => move(-1),
  a: () => one("#approve")?.focus(),
  d: () => one("#no-reason")?.focus(),
  i: () => location.assign("/"),
  "?": () => one("#keys")?.showModal(),
};

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.(TYPING)) return;
  const act = KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});
