/** The page: a photo comes in, the worker enhances it, and both are shown over each other. */

const SAMPLE = "sample.jpg";

const element = Object.fromEntries([...document.querySelectorAll("[id]")].map((node) => [node.id, node]));
// The content of model.json: what is done before it is there, waits for it in `take`.
let settings = null;
const loading = loadSettings();
let worker = null;
// The photo that is shown, {name, bitmap, width, height}, and the work on it, {id, output, started}.
let photo = null;
let job = null;
let numJobs = 0;
let numTaken = 0;

async function loadSettings() {
  try {
    const response = await fetch("model.json", { cache: "no-cache" });
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
    settings = await response.json();
  } catch (error) {
    complain(`The page's model.json cannot be loaded (${error.message}): was the page built with its script?`);
    return;
  }
  element.larger.textContent = `${settings.outputs.upscaled.scale} times as large`;
  element.model.textContent = `Model ${settings.name} of jpegsr`;
}

function complain(message) {
  element.alert.textContent = message;
  element.alert.hidden = !message;
}

/** Show a photo that can be read; any other one is said to be so, and the former one stays. */
async function take(file, name) {
  await loading;
  if (!settings) return; // and the page says so
  complain("");
  const turn = ++numTaken;
  const url = URL.createObjectURL(file);
  const largest = settings.max_result_pixels;
  let size;
  let bitmap;
  try {
    size = await sizeOf(url);
    if (size.width * size.height <= largest) bitmap = await createImageBitmap(file, { premultiplyAlpha: "none" });
    else complain(`${name} has ${describe(size)}: this page takes ${megapixels(largest)} megapixels at most.`);
  } catch {
    complain(`${name} is no picture that this browser can read. Choose a JPEG, PNG or WebP file.`);
  }
  if (!bitmap || turn !== numTaken) {
    URL.revokeObjectURL(url); // it is no photo, or another one has been chosen meanwhile
    return;
  }
  stop("");
  photo?.bitmap.close();
  photo = { name, bitmap, ...size };
  URL.revokeObjectURL(element.before.src);
  element.before.src = url;
  hideResult();
  element.caption.textContent = `${name}: ${describe(photo)}`;
  element.figure.hidden = element.settings.hidden = false;
  offerSizes();
  prepare();
}

/** Width and height as shown, orientation applied; browsers tell them before they decode the rest. */
function sizeOf(url) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => (image.naturalWidth ? resolve({ width: image.naturalWidth, height: image.naturalHeight }) : reject());
    image.onerror = reject;
    image.src = url;
  });
}

/** What would become too large is not offered. */
function offerSizes() {
  const [larger, same] = element.settings.elements.output;
  larger.disabled = photo.width * photo.height * settings.outputs.upscaled.scale ** 2 > settings.max_result_pixels;
  if (larger.disabled) {
    same.checked = true;
    const most = settings.max_result_pixels / settings.outputs.upscaled.scale ** 2;
    complain(`To be enlarged, a photo may have ${megapixels(most)} megapixels. This one is enhanced at its own size.`);
  }
}

/** Load the network while the visitor looks at the photo. */
function prepare() {
  if (worker) return;
  worker = new Worker("worker.js");
  worker.onmessage = ({ data }) => receive(data);
  worker.onerror = (event) => receive({ type: "failed", reason: event.message || "the worker did not start" });
  worker.postMessage({ type: "prepare", settings });
}

function enhance() {
  if (job) return;
  complain("");
  prepare();
  hideResult();
  const output = element.settings.elements.output.value;
  const strength = element.strength.valueAsNumber / 100;
  job = { id: ++numJobs, output, started: performance.now() };
  element.work.hidden = false;
  element.cancel.focus();
  element.enhance.disabled = true;
  element.progress.removeAttribute("value");
  element.status.textContent = `Loading the network (${megabytes(settings.download_bytes)} MB, once)`;
  worker.postMessage({ type: "enhance", job: job.id, settings, bitmap: photo.bitmap, output, strength });
}

/** End the work that is under way, if any. */
function stop(message) {
  if (job) worker?.postMessage({ type: "cancel" });
  job = null;
  element.work.hidden = true;
  element.enhance.disabled = false;
  element.status.textContent = message;
}

function receive(message) {
  if (message.type === "failed") {
    // It may have run out of memory: the next one starts afresh.
    worker.terminate();
    worker = null;
    stop("");
    const [reason] = message.reason.split("\n");
    complain(`The network cannot run in this browser (${reason}). A smaller photo, or another browser, may do.`);
  }
  if (message.job !== job?.id) return;
  if (message.type === "progress") {
    if (message.total > 1) {
      element.progress.max = message.total;
      element.progress.value = message.done;
    }
    element.status.textContent = `Tile ${Math.min(message.done + 1, message.total)} of ${message.total}`;
  }
  if (message.type === "result") showResult(message);
}

async function showResult({ job: id, png, width, height, numThreads }) {
  const { scale } = settings.outputs[job.output];
  const seconds = ((performance.now() - job.started) / 1000).toFixed(1);
  element.after.src = element.download.href = URL.createObjectURL(png);
  await element.after.decode().catch(() => {}); // it is shown in any case
  if (job?.id !== id) return; // another photo has been chosen meanwhile
  element.after.hidden = element.split.hidden = element.done.hidden = false;
  element.comparison.classList.add("compared");
  element.zoom.hidden = element.after.naturalWidth <= element.after.clientWidth && !element.scroller.classList.contains("full");
  element.download.download = `${photo.name.replace(/\.[^.]*$/, "")}_x${scale}.png`;
  element.download.textContent = `Download PNG (${megabytes(png.size)} MB)`;
  element.caption.textContent = `${photo.name}: ${describe(photo)} before (left), ${describe({ width, height })} after (right)`;
  const threads = numThreads > 1 ? ` on ${numThreads} threads` : "";
  stop(`Done in ${seconds} seconds${threads}`);
  element.split.focus({ preventScroll: true });
}

function hideResult() {
  if (element.after.src) URL.revokeObjectURL(element.after.src);
  element.after.removeAttribute("src");
  element.after.hidden = element.split.hidden = element.done.hidden = true;
  element.comparison.classList.remove("compared");
}

function describe({ width, height }) {
  return `${width} × ${height} pixels`;
}

function megapixels(pixels) {
  return +(pixels / 1e6).toFixed(1);
}

function megabytes(bytes) {
  return bytes < 1e5 ? (bytes / 1e6).toFixed(2) : (bytes / 1e6).toFixed(1);
}

function listen() {
  element.file.addEventListener("change", () => {
    const [file] = element.file.files;
    if (file) take(file, file.name);
    element.file.value = ""; // so that the same file may be chosen again
  });
  element.sample.addEventListener("click", takeSample);
  element.settings.addEventListener("submit", (event) => {
    event.preventDefault();
    enhance();
  });
  element.cancel.addEventListener("click", () => {
    stop("Cancelled");
    element.enhance.focus();
  });
  element.strength.addEventListener("input", showStrength);
  element.split.addEventListener("input", () => element.comparison.style.setProperty("--split", `${element.split.value}%`));
  element.zoom.addEventListener("click", () => {
    const isFull = element.scroller.classList.toggle("full");
    element.zoom.setAttribute("aria-pressed", isFull);
  });
  document.addEventListener("paste", (event) => takeFirst(event.clipboardData.files));
  for (const type of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(type, (event) => {
      event.preventDefault();
      document.body.classList.toggle("dragging", type === "dragover");
    });
  }
  document.addEventListener("drop", (event) => takeFirst(event.dataTransfer.files));
}

async function takeSample() {
  try {
    take(await (await fetch(SAMPLE)).blob(), SAMPLE);
  } catch (error) {
    complain(`The sample cannot be loaded (${error.message}).`);
  }
}

function showStrength() {
  element.share.textContent = `${element.strength.value} %`;
  element.strength.setAttribute("aria-valuetext", element.share.textContent);
}

function takeFirst(files) {
  if (files.length) take(files[0], files[0].name);
}

listen();
showStrength(); // a browser may have kept another value over a reload
