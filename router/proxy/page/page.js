// The operators' page: asks for the state every two seconds, and keeps the document to it.
// All text goes in by textContent: some of these words are a provider's.

const POLL_MS = 2000;
const PATIENCE_MS = 15000;
const KEPT_PICKS = 100;
const FIRST_PICKS = 12;
const STORED = "video-router.key";
const SVG = "http://www.w3.org/2000/svg";

const by = (id) => document.getElementById(id);

const page = {
  key: sessionStorage.getItem(STORED) || "",
  cursor: "",
  state: null,
  history: null,
  picks: new Map(),
  allPicks: false,
  heard: 0,
  timer: 0,
  round: 0,
};

// Making elements ------------------------------------------------------------------------------

function make(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function drawn(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// Keeps one element for each key, in order; what is the same as before is left as it is, so that
// what is open stays open and what is selected stays selected.
function keep(parent, items, keyOf, draw) {
  const known = new Map(Array.from(parent.children, (child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    const written = JSON.stringify(item);
    let element = known.get(key);
    known.delete(key);
    if (!element || element.written !== written) {
      const made = draw(item, element);
      made.dataset.key = key;
      made.written = written;
      if (element && element !== made) {
        if (place === element) place = made;
        element.replaceWith(made);
      }
      element = made;
    }
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
  }
  for (const element of known.values()) element.remove();
}

function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Words ----------------------------------------------------------------------------------------

const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const at = (seconds) => clock.format(new Date(seconds * 1000));

function short(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.0995) return `${(seconds * 1000).toFixed(0)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(seconds < 0.995 ? 2 : 1)} s`;
  return seconds < 99.5 ? `${seconds.toFixed(0)} s` : lasting(seconds);
}

function lasting(seconds) {
  const whole = Math.max(Math.round(seconds), 0);
  if (whole < 90) return `${whole} s`;
  const minutes = Math.round(whole / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.round(hours / 24)} d`;
}

const money = (dollars) => `$${dollars.toFixed(dollars >= 1000 ? 0 : 2)}`;
const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

function whyOut(out, now) {
  const what = ["drained", "retired"].includes(out.cause)
    ? out.cause
    : out.scope === "both" ? "out" : `no ${out.scope}`;
  if (out.cause === "retired") return `retired: ${out.reason}`;
  const until = out.until === null
    ? "until it is restored"
    : `until ${at(out.until)}, ${lasting(out.until - now)} more`;
  return `${what} ${until}: ${out.reason}`;
}

// Deployments ----------------------------------------------------------------------------------

function sparkline(values, title) {
  const width = 118;
  const height = 30;
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": title });
  svg.append(drawn("title", {}, title));
  svg.append(drawn("line", { class: "base", x1: 0, x2: width, y1: height - 0.5, y2: height - 0.5 }));
  const first = values.findIndex((value) => value !== null);
  if (first < 0) return svg;
  // A line of its own for what is known; at the least so wide that a few samples are no spike.
  const shown = values.slice(first);
  const span = Math.max(shown.length - 1, 11);
  const most = Math.max(...shown.filter((value) => value !== null)) * 1.15 || 1;
  const x = (index) => width - ((shown.length - 1 - index) / span) * width;
  const y = (value) => height - 2 - (value / most) * (height - 4);
  for (const run of runs(shown)) {
    const points = run.map(([index, value]) => [x(index).toFixed(1), y(value).toFixed(1)]);
    if (points.length === 1) points.unshift([(points[0][0] - 2).toFixed(1), points[0][1]]);
    const line = points.map((point) => point.join(" ")).join("L");
    const [from, to] = [points[0][0], points[points.length - 1][0]];
    svg.append(drawn("path", { class: "area", d: `M${line}L${to} ${height - 1}L${from} ${height - 1}Z` }));
    svg.append(drawn("path", { class: "stroke", d: `M${line}` }));
  }
  return svg;
}

function runs(values) {
  const found = [];
  let run = null;
  values.forEach((value, index) => {
    if (value === null) {
      run = null;
      return;
    }
    if (run === null) found.push((run = []));
    run.push([index, value]);
  });
  return found;
}

function chart(times, values, unit) {
  if (times.name === null) return make("span", { class: "none" }, "nothing yet");
  const known = values.filter((value) => value !== null);
  const range = known.length
    ? `${short(Math.min(...known))} to ${short(Math.max(...known))} in the last ${lasting(page.history ? spanOf(page.history.times) : 0)}`
    : "no samples yet";
  const title = `${times.name}: now ${short(times.mean)}${unit}, 95 of 100 within ${short(times.p95)}${unit}; ${range}`;
  return make(
    "div",
    { class: "chart", title },
    sparkline(values, title),
    make("div", { class: "value" }, short(times.mean), make("small", {}, `p95 ${short(times.p95)}`)),
  );
}

const spanOf = (times) => (times.length ? times[times.length - 1] - times[0] : 0);

function gauge(label, taken, limit, alone) {
  if (limit === undefined) {
    const count = make("span", { class: "count" }, alone === null ? "–" : String(alone), make("small", {}, alone === null ? "" : " no cap"));
    return make("div", { class: "gauge" }, label ? make("span", { class: "label" }, label) : null, count);
  }
  const width = Math.min(taken / Math.max(limit, 1), 1) * 100;
  const fill = drawn("rect", { class: "fill", width: `${width.toFixed(1)}%`, height: "100%" });
  const track = drawn("rect", { class: "track", width: "100%", height: "100%" });
  return make(
    "div",
    { class: "gauge", "data-full": taken >= limit },
    label ? make("span", { class: "label" }, label) : null,
    make("span", { class: "count" }, String(taken), make("small", {}, ` of ${limit}`)),
    drawn("svg", { "aria-hidden": "true" }, track, fill),
  );
}

function roomOf(rooms, kind, alone) {
  const room = rooms[kind];
  return room ? gauge("", room.taken, room.limit, null) : gauge("", 0, undefined, alone);
}

function row(item) {
  const { one, lines, now } = item;
  const about = [one.account === one.id ? "" : one.account, one.provider, ...one.groups].filter(Boolean);
  // A name is not broken at its hyphens.
  const parts = about.flatMap((word, index) => [index ? " · " : "", make("span", { class: word.length < 28 ? "part" : null }, word)]);
  const why = one.out.map((out) => make("div", { class: "why" }, whyOut(out, now)));
  const cell = (label, child) => make("td", { "data-label": label, class: child.matches(".gauge") ? null : "charted" }, child);
  return make(
    "tr",
    { "data-tone": one.state.tone, "data-id": one.id },
    make("td", { class: "who" }, make("div", { class: "name" }, one.id), make("div", { class: "sub" }, ...parts)),
    make("td", { class: "state" }, make("span", { class: "badge", "data-tone": one.state.tone }, one.state.word), ...why),
    cell("Jobs", roomOf(one.rooms, "jobs", one.running)),
    cell("Submits / min", roomOf(one.rooms, "rpm", null)),
    cell("Answers in", chart(one.latency, lines.latency, "")),
    cell("A second of video takes", chart(one.job_time, lines.job_time, "")),
    make("td", { class: "number", "data-label": "Spent today" }, one.spent_today === null ? make("span", { class: "none" }, "–") : money(one.spent_today)),
  );
}

function showDeployments(state) {
  const wanted = by("filter").value.trim().toLowerCase();
  const onlyOut = by("only-out").checked;
  const every = state.deployments;
  const shown = every.filter((one) => {
    const words = [one.id, one.account, one.provider, ...one.groups].join(" ").toLowerCase();
    return words.includes(wanted) && (!onlyOut || one.state.tone !== "up");
  });
  by("tools").hidden = every.length < 8;
  const lines = (page.history && page.history.deployments) || {};
  const none = { latency: [], job_time: [] };
  const items = shown.map((one) => ({
    one,
    lines: lines[one.id] || none,
    now: one.out.length ? Math.floor(state.at) : 0,
  }));
  keep(by("deployments"), items, (item) => item.one.id, row);
  by("no-deployments").hidden = shown.length > 0;
  say(by("no-deployments"), every.length ? "No deployment is like this." : "No deployment is configured.");
}

function total(every, value) {
  const known = every.map(value).filter((one) => one !== null && one !== undefined);
  return known.length ? known.reduce((sum, one) => sum + one, 0) : null;
}

function tile(id, main, rest, tone) {
  const item = by(id);
  const written = `${main}|${rest}|${tone}`;
  if (item.written === written) return;
  item.written = written;
  item.dataset.tone = tone || "";
  item.replaceChildren(main, make("small", {}, rest));
}

// An account's limit is for all its deployments: what is known to be capped is told of how many.
function capped(state, kind) {
  const capOf = (one) => (one.rooms[kind] ? one.rooms[kind].limit : null);
  const accounts = new Map(state.accounts.map((one) => [one.id, capOf(one)]));
  let sum = 0;
  for (const [name, cap] of accounts) {
    const own = state.deployments.filter((one) => one.account === name).map(capOf);
    const ownSum = own.includes(null) ? null : own.reduce((a, b) => a + b, 0);
    const least = [cap, ownSum].filter((one) => one !== null);
    if (!least.length) return null;
    sum += Math.min(...least);
  }
  return accounts.size ? sum : null;
}

function showTiles(state) {
  const every = state.deployments;
  const up = every.filter((one) => one.state.tone === "up").length;
  const out = every.some((one) => one.state.tone === "out");
  tile("tile-up", String(up), ` of ${every.length}`, up === every.length ? "" : out ? "out" : "warning");
  const jobs = total(every, (one) => one.running) || 0;
  const cap = capped(state, "jobs");
  tile("tile-jobs", String(jobs), cap === null ? "" : ` of ${cap}`, cap !== null && jobs >= cap ? "warning" : "");
  const takenOf = (one) => (one.rooms.rpm ? one.rooms.rpm.taken : null);
  const byDeployment = total(every, takenOf);
  const submits = byDeployment === null ? total(state.accounts, takenOf) : byDeployment;
  const rpm = capped(state, "rpm");
  tile("tile-rpm", submits === null ? "–" : String(submits), submits === null ? " no limit is set" : rpm === null ? "" : ` of ${rpm}`, "");
  const spent = total(every, (one) => one.spent_today);
  tile("tile-money", spent === null ? "–" : money(spent), spent === null ? " no price is known" : "", "");
}

function showAccounts(state) {
  const limited = state.accounts.filter((one) => Object.keys(one.rooms).length || one.cost_per_day !== null);
  by("accounts-section").hidden = !limited.length;
  const names = { jobs: "Jobs", requests: "In flight", rpm: "Submits / min", read_rpm: "Reads / min" };
  keep(by("accounts"), limited, (one) => one.id, (one) => {
    const gauges = Object.entries(one.rooms).map(([kind, room]) => gauge(names[kind] || kind, room.taken, room.limit, null));
    if (one.cost_per_day !== null) gauges.push(spending(one));
    return make("li", {}, make("div", { class: "name" }, one.id), make("div", { class: "gauges" }, ...gauges));
  });
}

function spending(one) {
  const made = gauge("Spent today", one.spent_today || 0, one.cost_per_day, null);
  made.querySelector(".count").replaceChildren(money(one.spent_today || 0), make("small", {}, ` of ${money(one.cost_per_day)}`));
  return made;
}

// Picks and changes ----------------------------------------------------------------------------

const OPERATIONS = {
  create_character: "character", generation: "generation", edit: "edit", extension: "extension", remix: "remix",
  get_character: "get character", status: "status", content: "content", list: "list", delete: "delete",
};

function endOf(pick) {
  if (pick.result === null) return ["under way", ""];
  const took = short(pick.seconds);
  if (pick.accepted === "yes") return [`accepted in ${took}`, "up"];
  const answer = pick.status === null ? pick.result : `${pick.status} ${pick.result}`;
  return [`${answer} after ${took}`, pick.accepted === "maybe" ? "out" : "warning"];
}

function pickItem(pick, before) {
  const open = before ? before.firstElementChild.open : false;
  const [end, tone] = endOf(pick);
  const isRead = pick.candidates === null;
  const asked = [pick.asked.groups, pick.asked.seconds ? `${pick.asked.seconds} s` : "", pick.asked.size].filter(Boolean).join(" · ");
  const notes = [pick.attempt > 1 ? `attempt ${pick.attempt}` : "", pick.waited > 0 ? `waited ${short(pick.waited)}` : ""].filter(Boolean);
  const details = make(
    "details",
    { class: isRead ? "bare" : null },
    make(
      "summary",
      {},
      make("span", { class: "at" }, at(pick.at)),
      make("span", { class: "what" }, OPERATIONS[pick.operation] || pick.operation, " ", make("span", { class: "asked" }, asked)),
      make("span", { class: "to" }, `→ ${pick.deployment}`),
      make("span", { class: "end", "data-tone": tone }, end),
      make("span", { class: "reason" }, [...notes, pick.why].filter(Boolean).join("; ")),
    ),
    isRead ? null : candidates(pick),
  );
  details.open = open && !isRead;
  if (isRead) details.addEventListener("click", (event) => event.preventDefault());
  return make("li", {}, details);
}

function candidates(pick) {
  const order = (one) => (one[1] === "picked" ? 0 : 1);
  const rows = [...pick.candidates].sort((a, b) => order(a) - order(b)).map(([name, verdict, reason]) =>
    make("tr", { class: verdict === "picked" ? "picked" : null }, make("td", {}, name), make("td", {}, verdict), make("td", {}, reason)));
  return make("div", { class: "candidates" }, make("table", {}, make("tbody", {}, ...rows)));
}

const READS = new Set(["get_character", "status", "content", "list", "delete"]);

function showPicks() {
  const reads = by("reads").checked;
  const found = [...page.picks.values()]
    .filter((pick) => reads || !READS.has(pick.operation))
    .sort((a, b) => b.at - a.at || b.number - a.number)
    .slice(0, KEPT_PICKS);
  const shown = page.allPicks ? found : found.slice(0, FIRST_PICKS);
  by("more-picks").hidden = found.length <= FIRST_PICKS;
  say(by("more-picks"), page.allPicks ? "Show fewer" : `Show all ${found.length}`);
  keep(by("picks"), shown, (pick) => pick.key, pickItem);
  by("no-picks").hidden = shown.length > 0;
}

function takePicks(state) {
  for (const pick of state.picks) {
    const key = `${state.worker}/${pick.number}`;
    page.picks.set(key, { key, ...pick });
  }
  const oldest = [...page.picks.values()].sort((a, b) => a.at - b.at);
  for (const pick of oldest.slice(0, Math.max(oldest.length - 2 * KEPT_PICKS, 0))) page.picks.delete(pick.key);
}

function showChanges(state) {
  const keyOf = (change) => [change.at, change.deployment, change.what, change.scope].join(" ");
  keep(by("changes"), state.changes, keyOf, (change) => {
    const back = change.what === "back";
    const scope = change.scope && change.scope !== "both" ? ` for ${change.scope}` : "";
    const time = back || change.cause === "retired" ? "" : change.seconds === null ? ", until it is restored" : `, ${lasting(change.seconds)}`;
    const meant = ["drained", "retired"].includes(change.cause);
    const words = meant ? `${change.cause}${time}` : `${change.what}${scope}${time}`;
    const badge = make("span", { class: "badge", "data-tone": back ? "up" : meant ? "warning" : "out" }, words);
    return make(
      "li",
      {},
      make("span", { class: "at" }, at(change.at)),
      make("span", {}, make("span", { class: "name" }, change.deployment), " ", badge),
      make("div", { class: "why" }, change.reason),
    );
  });
  by("no-changes").hidden = state.changes.length > 0;
}

// Asking ---------------------------------------------------------------------------------------

function show(state) {
  showTiles(state);
  showDeployments(state);
  showAccounts(state);
  showPicks();
  showChanges(state);
}

function took(state) {
  page.cursor = state.cursor;
  page.history = state.history || page.history;
  page.state = state;
  page.heard = Date.now();
  takePicks(state);
  by("sign-in").hidden = true;
  by("board").hidden = false;
  by("sign-out").hidden = !page.key;
  by("content").classList.remove("stale");
  const workers = state.shared && state.workers ? `${plural(state.workers, "worker")} · ` : "";
  live("up", `${workers}live`);
  trouble(state.trouble ? `The workers' shared state does not answer: this is what this process knows by itself. ${state.trouble}` : "", "warning");
  show(state);
}

function live(tone, words) {
  by("live").dataset.tone = tone;
  say(by("live-words"), words);
}

function trouble(words, tone) {
  by("trouble").hidden = !words;
  by("trouble").dataset.tone = tone;
  say(by("trouble"), words);
}

function lost(why) {
  if (!page.state) {
    signIn(`The proxy does not answer: ${why}.`);
    return;
  }
  by("content").classList.add("stale");
  live("out", "connection lost");
  trouble(`The connection is lost (${why}). What stands here is of ${at(page.heard / 1000)}; trying again.`, "out");
}

function signIn(refusal) {
  by("board").hidden = true;
  by("sign-in").hidden = false;
  say(by("refusal"), refusal);
  by("key").value = "";
  by("key").focus();
}

function forget() {
  sessionStorage.removeItem(STORED);
  Object.assign(page, { key: "", cursor: "", state: null, history: null });
  page.picks.clear();
  // Nothing of what was seen is left in the document.
  for (const id of ["deployments", "accounts", "picks", "changes", "trouble"]) by(id).replaceChildren();
}

function refused(status) {
  const had = page.key !== "";
  forget();
  if (status === 403) signIn("This key may not see this page: it is not an operator's.");
  else signIn(had ? "This key is not known here." : "");
}

async function ask(round) {
  const headers = page.key ? { Authorization: `Bearer ${page.key}` } : {};
  let answer;
  let state = null;
  try {
    answer = await fetch(`operator/state?after=${encodeURIComponent(page.cursor)}`, {
      headers, cache: "no-store", credentials: "omit", redirect: "error", signal: AbortSignal.timeout(PATIENCE_MS),
    });
    if (answer.ok) state = await answer.json();
  } catch (error) {
    if (round === page.round) {
      lost(error.name === "TimeoutError" ? "it takes too long" : "no answer");
      again(round);
    }
    return;
  }
  if (round !== page.round) return;
  if (answer.status === 401 || answer.status === 403) {
    refused(answer.status);
    return;
  }
  if (!state) lost(`it answered ${answer.status}`);
  else {
    took(state);
    if (page.key) sessionStorage.setItem(STORED, page.key);
  }
  again(round);
}

function again(round) {
  clearTimeout(page.timer);
  // What nobody looks at is not asked for.
  if (!document.hidden) page.timer = setTimeout(ask, POLL_MS, round);
}

function start() {
  clearTimeout(page.timer);
  page.round += 1;
  ask(page.round);
}

by("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const key = by("key").value.trim();
  // A header takes no others, and no key has others.
  if (!/^[\x21-\x7e]+$/.test(key)) {
    signIn("This key is not known here.");
    return;
  }
  page.key = key;
  start();
});
by("sign-out").addEventListener("click", () => {
  page.round += 1;
  clearTimeout(page.timer);
  forget();
  signIn("");
});
by("filter").addEventListener("input", () => page.state && showDeployments(page.state));
by("only-out").addEventListener("change", () => page.state && showDeployments(page.state));
by("reads").addEventListener("change", showPicks);
by("more-picks").addEventListener("click", () => {
  page.allPicks = !page.allPicks;
  showPicks();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !by("board").hidden) start();
});
start();
