// Names of files and classes come from strangers, so they are only ever set as textContent.

const LETTERS = "abcdefghijklmnopqrstuvwxyz";
const ONE = 4; // photos that are loaded ahead
const GRID = 24; // photos of the grid
const $ = (id) => document.getElementById(id);

let session = null; // the answer of /api/session
let view = { items: [], classes: [] }; // the answer of /api/queue
let shownClass = null; // class that the grid is limited to; null: all
let focus = 0; // index of the photo that a key decides
let busy = false; // a request is on its way: keys are ignored
const pictures = new Map(); // by path: { url }, { problem }, or nothing yet

function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Send a request; an error status throws an Error with the server's message. */
async function ask(url, body) {
  const options = body === undefined ? {} : {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    throw new Error(
      "The server does not answer, so it is not known whether it wrote the last decision. Start " +
      "`fieldguide review` again and reload this page: it shows what the table says.",
      { cause: error },
    );
  }
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({}));
  const failed = new Error(answer.error ?? `the server answered with status ${response.status}`);
  failed.status = response.status;
  throw failed;
}

function showError(message) {
  $("error").textContent = message;
  $("error").hidden = false;
}

const isGrid = () => $("grid").checked;
const pathOf = (item) => `/api/photo/${item.id}/${isGrid() ? "small" : "large"}`;

/** Fetch the photo of an item, if that has not begun, and show it when it is there. */
async function loadPicture(item) {
  const path = pathOf(item);
  if (pictures.has(path)) return;
  pictures.set(path, null);
  let found;
  try {
    found = { url: URL.createObjectURL(await (await ask(path)).blob()) };
  } catch (error) {
    found = { problem: error.message };
  }
  pictures.set(path, found);
  showPicture(item);
}

/** Forget photos that are shown no more. */
function forgetPictures() {
  const kept = new Set(view.items.map(pathOf));
  for (const [path, found] of pictures) {
    if (found === null || kept.has(path)) continue;
    if (found.url) URL.revokeObjectURL(found.url);
    pictures.delete(path);
  }
}

function showPicture(item) {
  const cell = document.querySelector(`.cell[data-id="${item.id}"]`);
  const found = pictures.get(pathOf(item));
  if (!cell || !found) return;
  const place = cell.firstChild;
  if (found.url) {
    const image = element("img", "");
    image.alt = item.file;
    image.addEventListener("load", () => cell.classList.add("ready"));
    image.src = found.url;
    place.replaceWith(image);
  } else {
    place.replaceWith(element("p", "gone", `This photo cannot be shown: ${found.problem}`));
    cell.classList.add("ready");
  }
}

const classOf = (item) => item.label || item.suggested;

function showPhotos() {
  const items = isGrid() ? view.items : view.items.slice(0, 1);
  $("photos").className = isGrid() ? "grid" : "one";
  $("photos").replaceChildren(
    ...items.map((item, k) => {
      const cell = element("button", "cell");
      cell.dataset.id = item.id;
      cell.append(element("p", "", "…"));
      if (isGrid()) cell.append(element("span", "", classOf(item) || "no class"));
      cell.addEventListener("click", () => setFocus(k));
      return cell;
    }),
  );
  if (!items.length) $("photos").append(element("p", "", "Nothing is left to review here."));
  items.forEach(showPicture);
  view.items.forEach(loadPicture);
}

function setFocus(k) {
  focus = Math.max(0, Math.min(k, view.items.length - 1));
  document.querySelectorAll(".cell").forEach((cell, index) => {
    cell.ariaCurrent = String(index === focus);
    if (index === focus && isGrid()) cell.scrollIntoView({ block: "nearest" });
  });
  const item = view.items[focus];
  $("file").textContent = item ? item.file : "";
  $("now").replaceChildren();
  if (item) {
    $("now").append("Class in the table: ", element("strong", "", item.label || "none"));
    if (item.suggested) $("now").append(". Suggested: ", element("strong", "", item.suggested));
  }
  $("reasons").replaceChildren(...(item?.reasons ?? []).map((one) => element("li", "", one)));
  for (const button of $("classes").children) {
    button.ariaPressed = String(Boolean(item) && button.dataset.name === classOf(item));
  }
  const kept = item ? classOf(item) : "";
  $("keep").disabled = !kept;
  $("keep").lastChild.textContent = kept ? `${item.label ? "keep" : "choose"} ${kept}` : "keep";
}

function showProgress() {
  const done = view.total - view.waiting;
  $("progress").textContent = `${done} of ${view.total} reviewed`;
  $("bar").max = Math.max(1, view.total);
  $("bar").value = done;
  const choices = [[null, "all classes"]];
  for (const [name, count] of Object.entries(view.by_class)) {
    choices.push([name, `${name || "no class"} (${count})`]);
  }
  $("shown").replaceChildren(
    ...choices.map(([name, text]) => {
      const option = element("option", "", text);
      option.selected = name === shownClass;
      return option;
    }),
  );
  $("filter").hidden = !isGrid();
  $("all").hidden = !isGrid() || !view.items.length;
}

/** Fetch what is next; `first` is a photo that comes before the others. */
async function load(first) {
  const query = new URLSearchParams({ count: isGrid() ? GRID : ONE });
  if (isGrid() && shownClass !== null) query.set("class", shownClass);
  if (first !== undefined) query.set("first", first);
  view = await (await ask(`/api/queue?${query}`)).json();
  if (!view.items.length && view.waiting) { // this class is done
    shownClass = null;
    query.delete("class");
    view = await (await ask(`/api/queue?${query}`)).json();
  }
  const before = focus;
  $("warning").textContent = view.warnings.join("\n");
  $("warning").hidden = !view.warnings.length;
  showClasses();
  showProgress();
  showPhotos();
  setFocus(isGrid() && first === undefined ? before : 0);
  forgetPictures();
}

/**
 * Run one action at a time, then show what is next; the page does not move on before it is done.
 * An action may return the photo that comes first, and a message.
 */
async function act(action) {
  if (busy) return;
  busy = true;
  $("error").hidden = true;
  try {
    const { first, message } = (await action()) ?? {};
    await load(first);
    if (message) showError(message);
  } catch (error) {
    // The table may have changed. The message comes last: who reads it can press a key again.
    if (error.status) await load().catch(() => {});
    showError(error.message);
  }
  busy = false;
}

/** Write decisions together; photos that somebody else has changed stay as they are. */
function send(decided) {
  const decisions = decided.map(([item, label]) => ({ id: item.id, label, seen: item.seen }));
  act(async () => {
    const { stay } = await (await ask("/api/decide", { decisions })).json();
    return { message: stay.join("\n") };
  });
}

/** Return the photo in focus, but only if the reviewer sees it; else scroll to it. */
function seenItem() {
  const item = view.items[focus];
  const cell = item && document.querySelector(`.cell[data-id="${item.id}"]`);
  if (!cell?.classList.contains("ready")) return null;
  const { left, right, top, bottom } = cell.getBoundingClientRect();
  const middle = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
  if (cell.contains(middle)) return item;
  cell.scrollIntoView({ block: "nearest" });
  return null;
}

function decide(label) {
  const item = seenItem();
  if (item) send([[item, label]]);
}

function keep() {
  const item = view.items[focus];
  if (item && classOf(item)) decide(classOf(item));
}

function skip() {
  const item = seenItem();
  if (item) act(async () => { await ask("/api/skip", { id: item.id }); });
}

function undo() {
  act(async () => {
    const { ids, stay } = await (await ask("/api/undo", {})).json();
    if (!ids.length) throw new Error("nothing to undo since the server started");
    const message = stay && `rows that stay, because somebody else has changed them: ${stay}`;
    return { first: ids[0], message };
  });
}

function confirmAll() {
  const ready = view.items.filter((item) => classOf(item) &&
    document.querySelector(`.cell[data-id="${item.id}"].ready img`));
  if (ready.length) send(ready.map((item) => [item, classOf(item)]));
}

const keyOf = (k) => (k < 9 ? String(k + 1) : (LETTERS[k - 9] ?? ""));

function showClasses() {
  $("find").value = "";
  $("classes").replaceChildren(
    ...view.classes.map((name, k) => {
      const button = element("button", "");
      button.dataset.name = name;
      if (keyOf(k)) button.append(element("kbd", "", keyOf(k)));
      button.append(element("span", "", name));
      button.addEventListener("click", () => decide(name));
      return button;
    }),
  );
}

/** Show only the classes whose names have the text in the field. */
function findClasses() {
  const wanted = $("find").value.toLowerCase();
  for (const button of $("classes").children) {
    button.hidden = !button.dataset.name.toLowerCase().includes(wanted);
  }
}

$("find").addEventListener("input", findClasses);
$("find").addEventListener("keydown", (event) => {
  if (!["Enter", "Escape"].includes(event.key)) return;
  const text = $("find").value.trim().toLowerCase();
  if (event.key === "Enter" && text) {
    const found = view.classes.filter((name) => name.toLowerCase().includes(text));
    const exact = found.find((name) => name.toLowerCase() === text);
    if (exact === undefined && found.length !== 1) {
      showError(`${found.length} classes have ${JSON.stringify(text)} in their names; type the ` +
        "whole name");
      return;
    }
    decide(exact ?? found[0]);
  }
  $("find").value = "";
  findClasses();
  $("find").blur();
});

document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("#find, select")) return;
  // On some keyboards digits need Shift, which nobody wants to hold.
  const digit = !event.shiftKey && /^Digit(\d)$/.exec(event.code);
  const key = digit ? digit[1] : event.key;
  if (["Enter", " "].includes(key) && event.target.matches("aside button, input, summary")) return;
  const columns = isGrid()
    ? getComputedStyle($("photos")).gridTemplateColumns.split(" ").length : 1;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  const number = view.classes.findIndex((_, k) => keyOf(k) === key.toLowerCase());
  if (key === "Enter") keep();
  else if (key === " ") skip();
  else if (key === "Backspace") undo();
  else if (key === "0") decide("");
  else if (key === "/") $("find").focus();
  else if (isGrid() && key in steps) setFocus(focus + steps[key]);
  else if (number >= 0) decide(view.classes[number]);
  else return;
  event.preventDefault();
});

// After a click, Enter and Space are keys of the page again, not of what was clicked.
document.addEventListener("click", (event) => {
  if (event.detail > 0 && !event.target.matches("#find, select")) document.activeElement.blur();
});

for (const button of document.querySelectorAll("[data-key]")) {
  const text = button.textContent;
  button.replaceChildren(element("kbd", "", button.dataset.key), element("span", "", text));
}
$("keep").addEventListener("click", keep);
$("unusable").addEventListener("click", () => decide(""));
$("skip").addEventListener("click", skip);
$("undo").addEventListener("click", undo);
$("all").addEventListener("click", confirmAll);
$("shown").addEventListener("change", () => {
  const names = [null, ...Object.keys(view.by_class)]; // as showProgress lists them
  shownClass = names[$("shown").selectedIndex];
  act(async () => { focus = 0; });
});
$("grid").addEventListener("change", () => {
  history.replaceState(null, "", isGrid() ? "#grid" : "#");
  act(async () => { focus = 0; });
});

try {
  $("grid").checked = location.hash === "#grid";
  session = await (await ask("/api/session")).json();
  $("title").textContent = session.title;
  $("why").textContent = session.why;
  $("about").textContent = `Decisions go into ${session.table}, as ${session.reviewer}'s.`;
  await load();
} catch (error) {
  showError(error.message);
}
