"use strict";
// Header, controls and samples, and what follows from what a user does.

function showHeader() {
  byId("text").textContent = data.text;
  byId("text").dir = "auto";
  document.body.classList.toggle("long", data.text.length > 140);
  if (data.decoded !== data.text) {
    byId("normalized").hidden = false;
    byId("normalized").append("To the tokenizer: “", element("bdi", {}, data.decoded), "”");
  }
  const segmentations = tables.tokens.reduce((sum, token) => sum + Math.log10(token.total[0]), 0);
  const facts = {
    tokenizer: `${data.tokenizer} (${number(data.vocabulary_size)} entries)`,
    tokens: number(tables.tokens.length),
    bytes: number(data.starts.at(-1)),
    "segmentations of its tokens": large(segmentations),
  };
  byId("facts").append(
    ...Object.entries(facts).map(([name, value]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, value)),
    ),
  );
  const groups = [
    ["Drawn in this page", (m) => !m.samples],
    ["Fixed rules", (m) => !m.takes_p],
    ["Samples drawn by Python", (m) => m.samples && m.takes_p],
  ];
  for (const [label, belongs] of groups) {
    const options = data.methods.map((m, i) => [m, i]).filter(([m]) => belongs(m));
    if (options.length) {
      byId("method").append(
        element("optgroup", { label }, ...options.map(([m, i]) => element("option", { value: i }, m.name))),
      );
    }
  }
  const footer = [
    `Made by stochastok ${data.version}. The page loads nothing and sends nothing: its tables are those of this text.`,
    "With equal seeds, samples are those of the command line.",
    ...data.left_out.map(({ name, reason }) => `${name} is left out: ${reason}`),
  ];
  byId("footer").append(...footer.map((line) => element("p", {}, line)));
}

const COUNTS = { "attempted splits per token": "attempt", "splits per token": "split" };

/** What the p of the slider means for this text. */
function meaningOfP(m) {
  if (!m.takes_p) return "a fixed rule has no p";
  if (m.samples) return `drawn at p = ${gridPoint(m)}`;
  if (!(m.p_meaning in COUNTS)) return `a ${m.p_meaning}`;
  const n = tables.tokens.length,
    p = proportion();
  const count = Math.floor(n * p);
  return `⌊${number(n)} × ${shortNumber(p)}⌋ = ${number(count)} ${COUNTS[m.p_meaning]}${count === 1 ? "" : "s"}`;
}

/** The p of the embedded samples that are shown. */
const gridPoint = (m) => m.grid[m.samples.indexOf(samplesAt(m, proportion()))];

function showControls() {
  const m = method();
  byId("method").value = state.method;
  byId("slider").disabled = byId("p").disabled = !m.takes_p;
  byId("slider").max = Math.max(1, Math.min(m.max_p, state.p));
  byId("p").max = m.max_p;
  byId("slider").value = m.takes_p ? proportion() : 0;
  byId("p").value = m.takes_p ? shortNumber(proportion()) : "";
  byId("seed").disabled = Boolean(m.samples);
  byId("seed").value = seedOf(m);
  for (const id of ["p", "seed"]) byId(id).classList.remove("invalid");
  byId("budget").value = meaningOfP(m);
  byId("budget").classList.toggle("counts", m.p_meaning in COUNTS);
  const inputs = m.arguments.map((argument) => {
    const input = element("input", {
      type: "number",
      step: argument.whole ? 1 : "any",
      min: argument.minimum,
      max: argument.maximum,
      value: m.values[argument.name],
    });
    input.addEventListener("change", () => setArgument(m, argument, input));
    return element("label", { title: argument.description }, argument.name, input);
  });
  byId("arguments").replaceChildren(...inputs);
}

/** Takes a new value of an argument, if it is possible, and gives the method its new name. */
function setArgument(m, argument, input) {
  const value = argument.whole ? Math.round(input.valueAsNumber) : input.valueAsNumber;
  const possible =
    value >= argument.minimum &&
    value <= argument.maximum &&
    !(argument.name === "temperature" && Math.abs(value) < 0.01) &&
    !(argument.name === "nbest" && value === 0);
  input.classList.toggle("invalid", !possible);
  if (!possible) return;
  m.values[argument.name] = value;
  const changed = m.arguments.filter((a) => m.values[a.name] !== a.default).map((a) => `${a.name}=${m.values[a.name]}`);
  m.name = changed.length ? `${m.family}:${changed.join()}` : m.family;
  byId("method").querySelector(`option[value="${state.method}"]`).textContent = m.name;
  update();
}

function showSamples() {
  const m = method(),
    n = tables.tokens.length;
  const row = (label, parts) =>
    element(
      "li",
      {},
      element("span", { class: "label" }, label),
      chips(parts),
      element("span", { class: "count" }, `${number(parts.length)} tokens, ${number(parts.length / n, 2)}×`),
    );
  const count = m.takes_p ? data.samples : 1;
  const rows = Array.from({ length: count }, (_, i) =>
    row(
      m.takes_p ? `sample ${state.first + i + 1}` : "result",
      drawSample(tables, m, proportion(), state.seed, state.first + i),
    ),
  );
  byId("rows").replaceChildren(row("canonical", canonical(tables)), ...rows);
  byId("description").textContent = `${m.name}: ${m.description}.`;
  byId("samples-badge").textContent = !m.takes_p
    ? "computed by Python"
    : m.samples
      ? `drawn by Python, ${samplesAt(m, proportion()).length} for each p`
      : "";
  byId("again").disabled = !m.takes_p;
  showMean();
  const quote = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);
  const arguments_ = ["stochastok", "expand", ...data.options, "--method", m.name];
  if (m.takes_p)
    arguments_.push(
      "-p",
      m.samples ? gridPoint(m) : proportion(),
      "--seed",
      seedOf(m),
      "--samples",
      state.first + count,
    );
  else arguments_.push("--samples", 1);
  byId("command").textContent = [...arguments_, `--text=${data.text}`].map((word) => quote(String(word))).join(" ");
}

function showMean() {
  const m = method(),
    n = tables.tokens.length,
    { value, exact, interval, count } = at(m);
  byId("mean").textContent = m.takes_p
    ? `${number(value, 2)}${exact ? "" : ` ± ${number(interval, 2)}`} tokens on average, ` +
      `${number(value / n, 3)} times the canonical ${number(n)} ` +
      (exact ? "(exact)." : `(the mean of ${number(count)} samples, with its 95% interval).`)
    : "";
}

let growthTimer = 0;

/** Shows a change with the next frame: a slider moves more often than the page can be drawn. */
let isDue = false;

function updateSoon() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    update();
  });
}

function update() {
  showControls();
  showSamples();
  weighArcs();
  showDistribution();
  clearTimeout(growthTimer);
  growthTimer = setTimeout(showGrowth, byId("chart").firstChild ? 60 : 0);
  drawMoreSamples();
  remember();
}

/** Keeps the state in the address, so that a reload and a copied link show the same. */
function remember() {
  const values = new URLSearchParams({
    method: method().name,
    p: state.p,
    seed: state.seed,
    first: state.first,
    word: state.word,
  });
  try {
    history.replaceState(null, "", `#${values}`);
  } catch {
    // A page in a sandbox has no history.
  }
}

function recall() {
  const values = new URLSearchParams(location.hash.slice(1));
  const whole = (name, most, least = 0) => {
    const value = Number(values.get(name) ?? NaN);
    return Number.isInteger(value) && value >= least && value <= most ? value : state[name];
  };
  const known = data.methods.findIndex((m) => m.name === values.get("method"));
  if (known >= 0) state.method = known;
  const p = Number(values.get("p") ?? NaN);
  if (p >= 0 && p <= Math.max(...data.methods.map((m) => m.max_p))) state.p = p;
  state.seed = whole("seed", Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER);
  state.first = whole("first", 1e6);
  state.word = whole("word", tables.words.length - 1);
}

byId("method").addEventListener("change", (event) => {
  state.method = Number(event.target.value);
  state.first = 0;
  update();
});
byId("slider").addEventListener("input", (event) => {
  state.p = event.target.valueAsNumber;
  updateSoon();
});
byId("p").addEventListener("change", (event) => {
  const p = event.target.valueAsNumber;
  const possible = p >= 0 && p <= method().max_p;
  event.target.classList.toggle("invalid", !possible);
  if (possible) {
    state.p = p;
    update();
  }
});
byId("seed").addEventListener("change", (event) => {
  const seed = event.target.valueAsNumber;
  const possible = Number.isSafeInteger(seed);
  event.target.classList.toggle("invalid", !possible);
  if (possible) {
    state.seed = seed;
    state.first = 0;
    update();
  }
});
byId("controls").addEventListener("submit", (event) => {
  event.preventDefault();
  state.first += data.samples;
  update();
});

recall();
showHeader();
showLattice();
selectWord(state.word);
update();
