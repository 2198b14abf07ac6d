"use strict";
// What the page shows. All text of the user and of the vocabulary reaches the document as text nodes and attributes.

const data = JSON.parse(document.getElementById("data").textContent);
const tables = readTables(data);
const SVG = "http://www.w3.org/2000/svg";
const SHOWN_SEGMENTATIONS = 12;
const MOST_ARCS = 1500; // of a word whose lattice is drawn
const CELL = 20; // the width of a byte in the lattice
const ROW = 23; // the height of a row of arcs
const DASHES = ["", "7 3", "2 3", "10 3 2 3", "4 2", "", "1 4", "12 4"];

const byId = (id) => document.getElementById(id);

/** A new element: attributes, then children (nodes and strings). */
function element(name, attributes = {}, ...children) {
  const node = name.includes(":") ? document.createElementNS(SVG, name.slice(4)) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const svg = (name, attributes, ...children) => element(`svg:${name}`, attributes, ...children);

// ------------------------------------------------------------------------------------------------- formatting

const number = (value, digits = 0) => value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

/** A positive number: as it is up to 7 digits, beyond in powers of 10, given as its logarithm. */
function large(log10) {
  if (log10 < 7) return number(Math.round(10 ** log10));
  const exponent = Math.floor(log10);
  const superscript = [...String(exponent)].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join("");
  return `${number(10 ** (log10 - exponent), 1)} × 10${superscript}`;
}

function percent(value) {
  if (value === 0) return "0%";
  if (value < 0.000001) return "< 0.0001%";
  if (value < 0.00995) return `${Number((100 * value).toPrecision(2))}%`;
  return value < 0.0995 ? `${number(100 * value, 1)}%` : `${number(100 * value)}%`;
}

/** A character for people, and whether that is a mark in its place: for white space and what can't be seen. */
function visibleCharacter(character) {
  const marks = { " ": "·", "\n": "⏎", "\r": "␍", "\t": "⇥" };
  if (character in marks) return [marks[character], true];
  if (/[\p{C}\p{Z}]/u.test(character)) return [`⟨${character.codePointAt(0).toString(16)}⟩`, true];
  return [character, false];
}

/** The text of a token for people; of one that is not UTF-8, its bytes. */
function visible(id) {
  if (data.not_utf8[id]) return [[data.not_utf8[id], true]];
  const characters = [...data.texts[id]].map(visibleCharacter);
  if (/^[\p{M}\u200d]/u.test(data.texts[id])) characters.unshift(["◌", true]);
  return characters;
}

/** The text of a word for people, its beginning if it is long. */
function wordText(word) {
  const characters = charactersOf[word.index].map(([, , text]) => visibleCharacter(text)[0]);
  return characters.length > 24 ? `${characters.slice(0, 23).join("")}…` : characters.join("");
}

const visibleText = (id) => visible(id).map(([text]) => text).join("");

/** The parts of a segmentation; those that differ from the canonical tokens have the colour of their token. */
function chips(parts) {
  return element("div", { class: "chips" }, ...parts.map(([start, end, id]) => {
    const t = tokenAt(start), token = tables.tokens[t];
    const same = token.start === start && token.end === end && token.id === id;
    const chip = element("span", { class: same ? "chip" : `chip changed h${t % 6}`, dir: "auto", title: `id ${id}, ${end - start} bytes` });
    let plain = "";
    for (const [text, isMark] of visible(id)) {
      if (!isMark) {
        plain += text;
        continue;
      }
      chip.append(plain, element("span", { class: "mark" }, text));
      plain = "";
    }
    chip.append(plain);
    return chip;
  }));
}

/** The index of the canonical token that has a byte. */
function tokenAt(byte) {
  let low = 0, high = tables.tokens.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (tables.tokens[middle].start <= byte) low = middle;
    else high = middle - 1;
  }
  return low;
}

// ------------------------------------------------------------------------------------------------------ state

/** The word with the most segmentations of which all can be listed. */
const richestWord = tables.words.map(({ first, last, index }) => ({
  index, size: tables.tokens.slice(first, last).reduce((product, token) => product * token.total[0], 1),
})).filter(({ size }) => size <= MOST_SEGMENTATIONS).sort((a, b) => b.size - a.size)[0]?.index ?? 0;
const state = { method: 0, p: data.p, seed: data.seed, first: 0, word: richestWord };
const method = () => data.methods[state.method];
const seedOf = (m) => (m.samples ? data.seed : state.seed);
const proportion = (m = method()) => (m.takes_p ? Math.min(state.p, m.max_p) : 1);

/** How many samples estimates are made of: at first, and in the end; fewer of a long text. */
const FIRST_SAMPLES = Math.round(Math.min(2000, Math.max(50, 150000 / data.starts.at(-1))));
const ALL_SAMPLES = Math.round(Math.min(2000, Math.max(200, 400000 / data.starts.at(-1))));

let cache = { key: "", samples: [] };
let sampleTimer = 0;

/** Samples for estimates, the same as long as method, p and seed are. */
function samples() {
  const m = method(), key = `${m.name}/${proportion()}/${state.seed}`;
  if (cache.key !== key) {
    cache = { key, samples: [] };
    drawSamples(m.samples ? samplesAt(m, proportion()).length : FIRST_SAMPLES);
  }
  return cache.samples;
}

/** Draws more samples, up to `count` of them or up to a time. */
function drawSamples(count, until = Infinity) {
  for (let i = cache.samples.length; i < count && performance.now() < until; i++) {
    cache.samples.push(drawSample(tables, method(), proportion(), state.seed, i));
  }
}

/** Draws the other samples while nothing else happens, and then shows what they say. */
function drawMoreSamples() {
  clearTimeout(sampleTimer);
  if (method().samples || samples().length >= ALL_SAMPLES) return;
  sampleTimer = setTimeout(() => {
    drawSamples(ALL_SAMPLES, performance.now() + 40);
    if (cache.samples.length < ALL_SAMPLES) {
      drawMoreSamples();
      return;
    }
    curves.delete(atKey(method()));
    showMean();
    weighArcs();
    showDistribution();
    drawGrowth();
  }, 60);
}

const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

/** The mean number of tokens at p, and whether it is exact. */
function meanTokens(m, p, count) {
  if (!m.takes_p) return { value: m.samples[0][0].length, exact: true };
  if (p === 0 && m.identity_at_zero) return { value: tables.tokens.length, exact: true };
  const law = lawOf(m);
  if (law.expected) return { value: law.expected(tables, m, p), exact: true };
  const drawn = m.samples ? samplesAt(m, p).map((ids) => ids.length)
    : Array.from({ length: count }, (_, i) => drawSample(tables, m, p, state.seed, i).length);
  return { value: mean(drawn), exact: false };
}

// -------------------------------------------------------------------------------------------------- the header

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
  byId("facts").append(...Object.entries(facts).map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value))));
  const groups = [["Drawn in this page", (m) => !m.samples], ["Fixed rules", (m) => !m.takes_p], ["Samples drawn by Python", (m) => m.samples && m.takes_p]];
  for (const [label, belongs] of groups) {
    const options = data.methods.map((m, i) => [m, i]).filter(([m]) => belongs(m));
    if (options.length) {
      byId("method").append(element("optgroup", { label }, ...options.map(([m, i]) => element("option", { value: i }, m.name))));
    }
  }
  const footer = [
    `Made by stochastok ${data.version}. The page loads nothing and sends nothing: its tables are those of this text.`,
    "With equal seeds, samples are those of the command line.",
    ...data.left_out.map(({ name, reason }) => `${name} is left out: ${reason}`),
  ];
  byId("footer").append(...footer.map((line) => element("p", {}, line)));
}

function showControls() {
  const m = method();
  byId("method").value = state.method;
  byId("slider").disabled = byId("p").disabled = !m.takes_p;
  byId("slider").max = Math.max(1, Math.min(m.max_p, state.p));
  byId("p").max = m.max_p;
  byId("slider").value = m.takes_p ? proportion() : 0;
  byId("p").value = m.takes_p ? Number(proportion().toPrecision(6)) : "";
  byId("seed").disabled = Boolean(m.samples);
  byId("seed").value = seedOf(m);
  const attempts = number(Math.floor(tables.tokens.length * proportion()));
  const counts = { "attempted splits per token": "attempts", "splits per token": "splits" };
  byId("budget").value = !m.takes_p ? "a fixed rule has no p"
    : m.samples ? `drawn at p = ${m.grid[m.samples.indexOf(samplesAt(m, proportion()))]}`
    : counts[m.p_meaning] ? `⌊${number(tables.tokens.length)} × ${Number(proportion().toPrecision(6))}⌋ = ${attempts} ${counts[m.p_meaning]}`
    : `a ${m.p_meaning}`;
  byId("budget").classList.toggle("counts", m.p_meaning in counts);
  const inputs = m.arguments.map((argument) => {
    const input = element("input", { type: "number", step: argument.whole ? 1 : "any", min: argument.minimum, max: argument.maximum, value: m.values[argument.name] });
    input.addEventListener("change", () => setArgument(m, argument, input));
    return element("label", { title: argument.description }, argument.name, input);
  });
  byId("arguments").replaceChildren(...inputs);
}

/** Takes a new value of an argument, if it is possible, and gives the method its new name. */
function setArgument(m, argument, input) {
  const value = argument.whole ? Math.round(input.valueAsNumber) : input.valueAsNumber;
  const possible = value >= argument.minimum && value <= argument.maximum
    && !(argument.name === "temperature" && Math.abs(value) < 0.01) && !(argument.name === "nbest" && value === 0);
  input.classList.toggle("invalid", !possible);
  if (!possible) return;
  m.values[argument.name] = value;
  const changed = m.arguments.filter((a) => m.values[a.name] !== a.default).map((a) => `${a.name}=${m.values[a.name]}`);
  m.name = changed.length ? `${m.family}:${changed.join()}` : m.family;
  byId("method").querySelector(`option[value="${state.method}"]`).textContent = m.name;
  update();
}

// ----------------------------------------------------------------------------------------------------- samples

function showSamples() {
  const m = method(), n = tables.tokens.length;
  const row = (label, parts) => element("li", {},
    element("span", { class: "label" }, label), chips(parts),
    element("span", { class: "count" }, `${number(parts.length)} tokens, ${number(parts.length / n, 2)}×`));
  const count = m.takes_p ? data.samples : 1;
  const rows = Array.from({ length: count }, (_, i) =>
    row(m.takes_p ? `sample ${state.first + i + 1}` : "result", drawSample(tables, m, proportion(), state.seed, state.first + i)));
  byId("rows").replaceChildren(row("canonical", canonical(tables)), ...rows);
  byId("description").textContent = `${m.name}: ${m.description}.`;
  byId("samples-badge").textContent = !m.takes_p ? "computed by Python"
    : m.samples ? `drawn by Python, ${samplesAt(m, proportion()).length} for each p` : "";
  byId("again").disabled = !m.takes_p;
  showMean();
  const quote = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);
  const arguments_ = ["stochastok", "expand", ...data.options, "--method", m.name];
  if (m.takes_p) arguments_.push("-p", m.samples ? m.grid[m.samples.indexOf(samplesAt(m, proportion()))] : proportion(), "--seed", seedOf(m), "--samples", state.first + count);
  else arguments_.push("--samples", 1);
  byId("command").textContent = [...arguments_, `--text=${data.text}`].map((word) => quote(String(word))).join(" ");
}

function showMean() {
  const m = method(), n = tables.tokens.length, { value, exact } = at(m);
  byId("mean").textContent = m.takes_p
    ? `${number(value, 2)} tokens on average, ${number(value / n, 3)} times the canonical ${number(n)} ` +
      (exact ? "(exact)." : `(over ${number(samples().length)} samples).`) : "";
}

// ----------------------------------------------------------------------------------------------------- lattice

/** The arcs of a word with the rows in which they are drawn: the canonical ones first, then from long to single bytes. */
function layOut(word) {
  const isCanonical = ([start, end, id]) => {
    const token = tables.tokens[tokenAt(start)];
    return token.start === start && token.end === end && token.id === id;
  };
  const arcs = tables.arcsOf[word.index].map((arc) => ({ arc, canonical: isCanonical(arc), width: arc[1] - arc[0] }))
    .sort((a, b) => b.canonical - a.canonical || b.width - a.width || a.arc[0] - b.arc[0]);
  const ends = []; // by row, the taken spans
  for (const item of arcs) {
    const [start, end] = item.arc;
    if (item.width === 1 && !item.canonical && ends.bytes === undefined) ends.bytes = ends.length;
    let row = item.canonical ? 0 : item.width === 1 ? ends.bytes : 1;
    while ((ends[row] ?? []).some(([from, to]) => start < to && end > from)) row++;
    (ends[row] ??= []).push([start, end]);
    item.row = row;
    item.crossing = tables.tokens[tokenAt(start)].end < end;
  }
  return { arcs, rows: ends.length };
}

const charactersOf = tables.words.map(() => []); // by word; one that words divide belongs to the first
for (const character of data.characters) charactersOf[tables.words.findLastIndex(({ start }) => start <= character[0])].push(character);

/** Makes a label smaller, if it is wider than the space for it. */
function fit(label, text, space, size) {
  const needed = 0.62 * [...text].length;
  if (needed * size > space) label.style.fontSize = `${Math.max(space / needed, 5)}px`;
}

function makeWord(word) {
  const { arcs, rows } = layOut(word);
  const width = (word.end - word.start) * CELL, top = 36;
  const x = (byte) => 5 + (byte - word.start) * CELL;
  const drawing = svg("svg", { width: width + 10, height: top + rows * ROW + 4, "aria-hidden": "true" });
  drawing.append(svg("line", { class: "rail", x1: x(word.start), x2: x(word.end), y1: top - 10, y2: top - 10 }));
  const characters = charactersOf[word.index];
  const edges = new Set(characters.flatMap(([start, end]) => [start, end]));
  for (let byte = word.start; byte <= word.end; byte++) {
    drawing.append(svg("line", { class: "drop", x1: x(byte), x2: x(byte), y1: top - 8, y2: top + rows * ROW }));
    drawing.append(svg("circle", { class: edges.has(byte) ? "node" : "node inner", cx: x(byte), cy: top - 10, r: edges.has(byte) ? 3 : 2 }));
  }
  for (const [start, end, text] of characters) {
    const [shown, isMark] = visibleCharacter(text);
    const label = svg("text", { class: isMark ? "character soft" : "character", x: (x(start) + x(end)) / 2, y: 12 }, shown);
    fit(label, shown, (end - start) * CELL - 2, 14);
    drawing.append(label);
  }
  const label = `${wordText(word)}, ${number(arcs.length)} arcs`;
  const node = element("div", { class: "word", role: "option", tabindex: -1, "aria-label": label });
  node.addEventListener("click", () => selectWord(word.index));
  if (arcs.length > MOST_ARCS) {
    node.append(element("p", { class: "note" }, element("bdi", { class: "mono" }, wordText(word)), `: ${number(arcs.length)} arcs are too many to draw`));
    return { node, arcs: [], current: -1 };
  }
  node.append(drawing);
  for (const item of arcs) {
    const [start, end, id] = item.arc;
    const left = x(start) + 1.5, right = x(end) - 1.5, y = top + item.row * ROW, bottom = y + ROW - 5;
    item.shape = svg("path", {
      class: `arc${item.canonical ? " canonical" : ""}${item.crossing ? " crossing" : ""}`,
      d: `M${left},${bottom} V${y + 8} Q${left},${y} ${left + 8},${y} H${right - 8} Q${right},${y} ${right},${y + 8} V${bottom} Z`,
    });
    const text = visibleText(id);
    const label = svg("text", { x: (left + right) / 2, y: (y + bottom) / 2 + 1, direction: "ltr" }, text);
    fit(label, text, (end - start) * CELL - 6, 12);
    drawing.append(item.shape, label);
    item.shape.addEventListener("pointerenter", () => readOut(word, item));
    item.shape.addEventListener("pointerleave", () => readOut(word, null));
  }
  return { node, arcs, current: -1 };
}

let words = [];

function showLattice() {
  words = tables.words.map(makeWord);
  byId("words").append(...words.map(({ node }) => node));
  const entry = (kind, text) => element("span", {}, element("i", { class: `swatch ${kind}` }), text);
  byId("legend").append(
    entry("canonical", "canonical"),
    entry("weight", "taken more often"),
    ...(words.some(({ arcs }) => arcs.some((item) => item.crossing)) ? [entry("crossing", "crosses canonical tokens")] : []));
  byId("words").addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
    const arcs = words[state.word].arcs;
    if (event.key in steps) selectWord(Math.max(0, Math.min(words.length - 1, state.word + steps[event.key])), true);
    else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && arcs.length) {
      const count = arcs.length, current = words[state.word].current;
      words[state.word].current = event.key === "ArrowDown" ? (current + 1) % count : (current - 1 + count + (current < 0)) % count;
      readOut(tables.words[state.word], arcs[words[state.word].current]);
    } else return;
    event.preventDefault();
  });
}

/** Says what an arc of a word is, and marks it. */
function readOut(word, item) {
  for (const { shape } of words[word.index].arcs) shape.classList.toggle("current", shape === item?.shape);
  if (!item) {
    byId("readout").textContent = "";
    return;
  }
  const [start, end, id] = item.arc;
  byId("readout").replaceChildren(element("bdi", {}, `“${visibleText(id)}”`),
    `: id ${id}, bytes ${start} to ${end}, taken in ${percent(item.weight)} of the samples${item.canonical ? "; canonical" : ""}`);
}

/** Fills the arcs by how many of the samples take them. */
function weighArcs() {
  const counts = new Map();
  for (const parts of samples()) for (const part of parts) {
    const key = part.join();
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  for (const { arcs } of words) for (const item of arcs) {
    item.weight = (counts.get(item.arc.join()) ?? 0) / samples().length;
    item.shape.setAttribute("fill-opacity", item.weight === 0 ? 0 : 0.06 + 0.5 * item.weight);
  }
  byId("lattice-badge").textContent = method().takes_p ? `shares in ${number(samples().length)} samples` : "";
  byId("readout").textContent = "Point at an arc, or use the arrow keys: left and right for words, up and down for arcs.";
}

function selectWord(index, focus = false) {
  state.word = index;
  words.forEach(({ node }, i) => {
    node.setAttribute("aria-selected", i === index);
    node.tabIndex = i === index ? 0 : -1;
  });
  if (focus) words[index].node.focus();
  showDistribution();
  remember();
}

// ------------------------------------------------------------------------------------------------ distribution

function showDistribution() {
  const m = method(), word = tables.words[state.word];
  let law = exactLaw(tables, m, proportion(), word);
  const exact = law !== null;
  if (!exact) {
    const own = samples().map((parts) => partsOf(parts, word));
    law = gather(own.map((parts) => [parts, 1 / own.length])).sort(likeliestFirst);
  }
  byId("distribution-badge").textContent = exact ? "exact" : `estimated from ${number(samples().length)} samples`;
  byId("distribution-badge").className = `badge ${exact ? "exact" : "estimated"}`;
  const tokens = tables.tokens.slice(word.first, word.last);
  const possible = tokens.reduce((sum, token) => sum + Math.log10(token.total[0]), 0);
  const pairs = tokens.length === 1 ? pairSplits(tables, [word.start, word.end, tokens[0].id]).length : null;
  byId("word-name").replaceChildren("of ", element("bdi", { class: "mono" }, wordText(word)));
  byId("word-facts").textContent = `${large(possible)} segmentation${possible === 0 ? "" : "s"} of its ` +
    `${tokens.length === 1 ? "token" : `${tokens.length} tokens`}${pairs === null ? "" : `, ${pairs} into a pair`}; ` +
    (exact ? `${m.name} can draw ${number(law.length)}.` : `${number(law.length)} in the samples.`);
  const shown = law.slice(0, SHOWN_SEGMENTATIONS), top = shown[0]?.[1] ?? 1;
  byId("bars").replaceChildren(...shown.map(([parts, probability]) => {
    const isCanonical = parts.length === tokens.length && parts.every(([start, end, id], i) => tokens[i].start === start && tokens[i].end === end && tokens[i].id === id);
    const bar = element("div", { class: "bar" }, svg("svg", { "aria-hidden": "true" }, svg("rect", { width: `${100 * probability / top}%`, height: 5 })));
    const row = element("li", { class: isCanonical ? "canonical" : "", tabindex: 0 }, chips(parts), element("span", { class: "share" }, percent(probability)), bar);
    for (const [event, on] of [["pointerenter", true], ["focus", true], ["pointerleave", false], ["blur", false]]) {
      row.addEventListener(event, () => markPath(on ? parts : []));
    }
    return row;
  }));
  const rest = law.slice(SHOWN_SEGMENTATIONS);
  byId("others").textContent = rest.length ? `${number(rest.length)} other${rest.length === 1 ? "" : "s"} together: ${percent(rest.reduce((sum, [, q]) => sum + q, 0))}` : "";
}

function markPath(parts) {
  const keys = new Set(parts.map((part) => part.join()));
  for (const { arc, shape } of words[state.word].arcs) shape.classList.toggle("path", keys.has(arc.join()));
}

// ------------------------------------------------------------------------------------------------------ growth

const curves = new Map(); // by method, seed and last p: the mean numbers of tokens

const curveKey = (m) => `${m.name}/${state.seed}/${xMaximum()}`;

function computeCurve(m) {
  const last = Math.min(xMaximum(), m.max_p), steps = 20;
  const at = m.samples ? m.grid.filter((p) => p <= last) : Array.from({ length: steps + 1 }, (_, i) => last * i / steps);
  const count = Math.round(Math.min(200, Math.max(10, 20000 / data.starts.at(-1))));
  curves.set(curveKey(m), at.map((p) => ({ p, ...meanTokens(m, p, count) })));
}

const xMaximum = () => Math.max(1, method().takes_p ? proportion() : 1);
const hue = (i) => (!data.methods[i].takes_p ? "soft" : i % 7 === 6 ? "ink" : `h${i % 7}`);

/** Draws the curves that are computed, and computes the others one by one, so that the page answers in between. */
function showGrowth() {
  drawGrowth();
  const missing = data.methods.find((m) => m.takes_p && !curves.has(curveKey(m)));
  if (!missing) return;
  growthTimer = setTimeout(() => {
    computeCurve(missing);
    showGrowth();
  }, 0);
}

function drawGrowth() {
  const n = tables.tokens.length, width = 440, height = 236, left = 38, right = 10, top = 10, bottom = 34;
  const drawn = data.methods.map((m, i) => ({ m, i, points: curves.get(curveKey(m)) })).filter(({ points }) => points);
  const all = drawn.flatMap(({ points }) => points.map((point) => point.value / n));
  if (!method().takes_p) all.push(method().samples[0][0].length / n);
  const most = Math.max(1.2, ...all), least = Math.min(1, ...all), xMost = xMaximum();
  const x = (p) => left + (width - left - right) * p / xMost;
  const y = (growth) => height - bottom - (height - top - bottom) * (growth - least) / (most - least);
  const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Growth of the text against p, a line for each method; the table has the values" });
  for (const tick of ticks(least, most)) {
    chart.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }),
      svg("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, `${Number(tick.toPrecision(3))}×`));
  }
  for (const tick of ticks(0, xMost)) chart.append(svg("text", { x: x(tick), y: height - 16, "text-anchor": "middle" }, Number(tick.toPrecision(3))));
  chart.append(svg("text", { class: "axis", x: (left + width - right) / 2, y: height + 4, "text-anchor": "middle" }, "p"));
  const line = ({ i, points }) => svg("path", {
    class: `curve ${hue(i)}${i === state.method ? " chosen" : ""}`, "stroke-dasharray": DASHES[i % DASHES.length],
    d: points.map((point, k) => `${k ? "L" : "M"}${x(point.p).toFixed(1)},${y(point.value / n).toFixed(1)}`).join(""),
  });
  chart.append(...drawn.filter(({ i }) => i !== state.method).map(line), ...drawn.filter(({ i }) => i === state.method).map(line));
  const now = method().takes_p ? mean(samples().map((parts) => parts.length)) / n : method().samples[0][0].length / n;
  if (method().takes_p) chart.append(svg("line", { class: "cursor", x1: x(proportion()), x2: x(proportion()), y1: top, y2: height - bottom }),
    svg("circle", { class: `dot ${hue(state.method)}`, cx: x(proportion()), cy: y(at(method()).value / n), r: 5.5 }));
  else chart.append(svg("path", { class: `curve chosen ${hue(state.method)}`, d: `M${x(0)},${y(now)}H${x(xMost)}` }));
  byId("chart").replaceChildren(chart);
  byId("methods").tBodies[0].replaceChildren(...data.methods.map((m, i) => {
    const swatch = svg("svg", { width: 26, height: 8, "aria-hidden": "true" }, svg("path", {
      class: `curve ${hue(i)} chosen`, "stroke-dasharray": m.takes_p ? DASHES[i % DASHES.length] : "", d: m.takes_p ? "M0,4H26" : "M11,4H15" }));
    const button = element("button", { type: "button", "aria-pressed": i === state.method }, swatch, m.name);
    button.addEventListener("click", () => { state.method = i; state.first = 0; update(); });
    const tokens = at(m).value;
    return element("tr", { class: i === state.method ? "chosen" : "" }, element("td", {}, button),
      element("td", {}, `${at(m).exact ? "" : "≈ "}${number(tokens, at(m).exact && Number.isInteger(tokens) ? 0 : 1)}`), element("td", {}, `${number(tokens / n, 2)}×`));
  }));
  byId("growth-note").textContent =
    `At p = ${Number(state.p.toPrecision(6))}${data.methods.some((m) => m.takes_p && state.p > m.max_p) ? ", or 1 for probabilities" : ""}. Exact but where ≈ stands: ` +
      "those are means of samples.";
}

const atKey = (m) => `${m.name}/${state.seed}/at/${proportion(m)}`;

/** The mean number of tokens of a method at the p of the slider. */
function at(m) {
  const key = atKey(m);
  if (!curves.has(key)) {
    curves.set(key, m === method() && !lawOf(m).expected && m.takes_p && !(proportion() === 0 && m.identity_at_zero)
      ? { value: mean(samples().map((parts) => parts.length)), exact: false } : meanTokens(m, proportion(m), Math.round(Math.min(200, Math.max(10, 20000 / data.starts.at(-1))))));
  }
  return curves.get(key);
}

/** Round numbers from `low` to `high`, some 5 of them. */
function ticks(low, high) {
  const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((size) => size >= rough * 0.999);
  return Array.from({ length: 12 }, (_, i) => (Math.ceil(low / step - 1e-9) + i) * step).filter((tick) => tick <= high * 1.0001);
}

// --------------------------------------------------------------------------------------------------- reactions

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
  const values = new URLSearchParams({ method: method().name, p: state.p, seed: state.seed, first: state.first, word: state.word });
  try {
    history.replaceState(null, "", `#${values}`);
  } catch {
    // A page in a sandbox has no history.
  }
}

function recall() {
  const values = new URLSearchParams(location.hash.slice(1));
  const whole = (name, most) => {
    const value = Number(values.get(name) ?? NaN);
    return Number.isInteger(value) && value >= 0 && value <= most ? value : state[name];
  };
  const known = data.methods.findIndex((m) => m.name === values.get("method"));
  if (known >= 0) state.method = known;
  const p = Number(values.get("p") ?? NaN);
  if (p >= 0 && p <= Math.max(...data.methods.map((m) => m.max_p))) state.p = p;
  state.seed = whole("seed", Number.MAX_SAFE_INTEGER);
  state.first = whole("first", 1e6);
  state.word = whole("word", tables.words.length - 1);
}

byId("method").addEventListener("change", (event) => { state.method = Number(event.target.value); state.first = 0; update(); });
byId("slider").addEventListener("input", (event) => { state.p = event.target.valueAsNumber; updateSoon(); });
byId("p").addEventListener("change", (event) => {
  const p = event.target.valueAsNumber;
  const possible = p >= 0 && p <= method().max_p;
  event.target.classList.toggle("invalid", !possible);
  if (possible) { state.p = p; update(); }
});
byId("seed").addEventListener("change", (event) => {
  const seed = event.target.valueAsNumber;
  const possible = Number.isSafeInteger(seed) && seed >= 0;
  event.target.classList.toggle("invalid", !possible);
  if (possible) { state.seed = seed; state.first = 0; update(); }
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
