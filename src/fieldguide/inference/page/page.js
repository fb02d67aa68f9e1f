// Class names come from archives of strangers, so they are only ever set as textContent.

const TOP = 5;
const $ = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)}%`;

let card = null; // the answer of /api/model
let photo = null; // the file that is shown
let prediction = new AbortController(); // aborts the request for an earlier photo
let explanation = new AbortController(); // aborts the request for an earlier class

function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Send a request; an error status throws an Error with the server's message. */
async function ask(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server does not answer", { cause: error });
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new Error(body.error ?? `the server answered with status ${response.status}`);
}

function showError(message) {
  $("error").textContent = message;
  $("error").hidden = false;
  $("answer").ariaBusy = "false";
  $("explanation").hidden = true;
  $("verdict").textContent = "No answer";
  $("classes").replaceChildren();
  $("rest").textContent = "Try another photo.";
}

/** Show a picture in an <img>, and free the earlier one. */
function display(image, blob) {
  if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(blob);
}

function preview(file) {
  $("preview").hidden = false;
  $("invitation").hidden = true;
  $("again").hidden = false;
  display($("preview"), file);
}

// The server reads TIFF, but few browsers show it: then there is no preview.
$("preview").addEventListener("error", () => {
  $("preview").hidden = true;
  $("invitation").hidden = false;
  $("again").hidden = true;
});

function showClasses(rows, unsure) {
  const [best] = rows;
  const guess = `${best.class}, ${percent(best.probability)}`;
  $("verdict").textContent = unsure ? `Unsure; best guess: ${guess}` : guess;
  $("classes").replaceChildren(
    ...rows.map((row) => {
      const item = element("li", "");
      const line = element("div", "row");
      line.append(
        element("span", "name", row.class),
        element("span", "share", percent(row.probability)),
      );
      const track = element("div", "track");
      const fill = element("div", "fill");
      fill.style.width = `${100 * row.probability}%`;
      track.append(fill);
      track.ariaHidden = "true";
      item.append(line, track);
      return item;
    }),
  );
  const others = card ? card.classes.length - rows.length : 0;
  const shown = rows.reduce((sum, row) => sum + row.probability, 0);
  $("rest").textContent =
    others > 0 ? `${others} other ${others === 1 ? "class" : "classes"}: ` +
      percent(Math.max(0, 1 - shown)) : "";
}

async function classify(file) {
  prediction.abort();
  explanation.abort();
  prediction = new AbortController();
  const { signal } = prediction;
  photo = file;
  $("error").hidden = true;
  $("explanation").hidden = true;
  preview(file);
  if (card && file.size > card.max_bytes) {
    showError(`${file.name}: larger than ${card.max_bytes / 1e6} MB`);
    return;
  }
  $("verdict").textContent = "Classifying…";
  $("answer").ariaBusy = "true";
  try {
    card ??= await showCard();
    const top = Math.min(TOP, card.classes.length);
    const response = await ask(`/api/predict?top=${top}`, { method: "POST", body: file, signal });
    const { classes, unsure } = await response.json();
    if (signal.aborted) return;
    showClasses(classes, unsure);
    $("answer").ariaBusy = "false";
    if (card.explain) {
      $("class").value = classes[0].class;
      await explain();
    }
  } catch (error) {
    if (signal.aborted) return;
    showError(`${file.name}: ${error.message.replace(/^photo: /, "")}`);
  }
}

async function explain() {
  explanation.abort();
  explanation = new AbortController();
  const { signal } = explanation;
  const label = $("class").value;
  $("explanation").hidden = false;
  $("explanation").ariaBusy = "true";
  $("drawing").textContent = "Drawing…";
  try {
    const url = `/api/explain?class=${encodeURIComponent(label)}`;
    const response = await ask(url, { method: "POST", body: photo, signal });
    const blob = await response.blob();
    if (signal.aborted) return;
    display($("picture"), blob);
    $("picture").alt = `the photo, and the areas in it that speak for ${label}`;
    $("caption").textContent = `The brighter an area, the more it speaks for ${label}.`;
    $("drawing").textContent = "";
  } catch (error) {
    if (signal.aborted) return;
    $("drawing").textContent = `No explanation: ${error.message.replace(/^photo: /, "")}`;
    $("picture").removeAttribute("src");
    $("caption").textContent = "";
  }
  $("explanation").ariaBusy = "false";
}

function fact(name, value) {
  const row = element("tr", "");
  const head = element("th", "", name);
  head.scope = "row";
  row.append(head, element("td", "", value));
  return row;
}

function accuracyText({ acc, acc_low: low, acc_high: high, photos }) {
  const range = `${(100 * low).toFixed(1)} to ${percent(high)}`;
  return `${percent(acc)} of ${photos.toLocaleString("en")} photos (95% interval ${range})`;
}

/** Fetch and show the model card. */
async function showCard() {
  const found = await (await ask("/api/model")).json();
  const { length } = found.classes;
  const rows = [
    fact("Test accuracy", found.test ? accuracyText(found.test) : "no test results here"),
    fact("Classes", `${length}: ${found.classes.join(", ")}`),
    fact("Architecture", found.architecture),
    fact("Photos resized to", `${found.image_size} × ${found.image_size} pixels`),
    fact("Network input", `${found.input_size} × ${found.input_size} pixels`),
  ];
  if (found.val_acc !== null) {
    rows.splice(1, 0, fact("Validation accuracy", percent(found.val_acc)));
  }
  const smallest = found.min_confidence;
  rows.push(fact("Unsure", smallest === null ? "never said" : `below ${percent(smallest)}`));
  if (found.trust !== null) rows.push(fact("Trust", found.trust));
  if (found.started_from !== null) {
    const from = found.started_from === "none" ? "random weights" : found.started_from;
    rows.push(fact("Trained from", from));
  }
  $("facts").replaceChildren(...rows);
  $("class").replaceChildren(
    ...found.classes.map((name) => {
      const option = element("option", "", name);
      option.value = name; // otherwise blanks in the name would be collapsed
      return option;
    }),
  );
  return found;
}

function take(files) {
  const [file] = files;
  if (file) classify(file);
  else showError("That is not a file; save the picture first, then drop the saved file here");
}

$("file").addEventListener("change", () => {
  if ($("file").files.length) classify($("file").files[0]);
  $("file").value = ""; // so that the same file can be chosen again
});
$("class").addEventListener("change", explain);

// Listen on the whole window: a photo dropped beside the field must not replace the page.
window.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
window.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("drop").classList.remove("over");
});
window.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  take(event.dataTransfer.files);
});
window.addEventListener("paste", (event) => {
  const { files } = event.clipboardData;
  if (files.length) take(files); // pasted text is ignored
});

try {
  card = await showCard();
} catch (error) {
  showError(`The model card cannot be loaded: ${error.message}`);
}
