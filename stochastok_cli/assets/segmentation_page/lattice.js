"use strict";
// The lattice of each word.

const MOST_ARCS = 1500; // of a word whose lattice is drawn
const CELL = 20; // the width of a byte
const ROW = 23; // the height of a row of arcs
const TOP = 36; // what is above the first row

/** The arcs of a word with the rows in which they are drawn: the canonical first, then from long to single bytes. */
function layOut(word) {
  const isCanonical = ([start, end, id]) => {
    const token = tables.tokens[tokenAt(start)];
    return token.start === start && token.end === end && token.id === id;
  };
  const arcs = tables.arcsOf[word.index]
    .map((arc) => ({ arc, canonical: isCanonical(arc), width: arc[1] - arc[0] }))
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
for (const character of data.characters)
  charactersOf[tables.words.findLastIndex(({ start }) => start <= character[0])].push(character);

/** Makes a label smaller, if it is wider than the space for it. */
function fit(label, text, space, size) {
  const needed = 0.62 * [...text].length;
  if (needed * size > space) label.style.fontSize = `${Math.max(space / needed, 5)}px`;
}

/** A word with a frame of the size of its lattice, which `drawWord` draws when it comes into view. */
function makeWord(word) {
  const { arcs, rows } = layOut(word);
  const label = `${wordText(word)}, ${number(arcs.length)} arcs`;
  const node = element("div", { class: "word", role: "option", tabindex: -1, "aria-label": label });
  node.addEventListener("click", () => selectWord(word.index));
  if (arcs.length > MOST_ARCS) {
    node.append(
      element(
        "p",
        { class: "note" },
        element("bdi", { class: "mono" }, wordText(word)),
        `: ${number(arcs.length)} arcs are too many to draw`,
      ),
    );
    return { word, node, arcs: [], current: -1, isDrawn: true };
  }
  const size = { width: (word.end - word.start) * CELL + 10, height: TOP + rows * ROW + 4 };
  const drawing = svg("svg", { ...size, "aria-hidden": "true" });
  node.append(drawing);
  return { word, node, drawing, arcs, rows, current: -1, isDrawn: false };
}

function drawWord(made) {
  if (made.isDrawn) return;
  made.isDrawn = true;
  const { word, drawing, arcs, rows } = made;
  const x = (byte) => 5 + (byte - word.start) * CELL;
  drawing.append(svg("line", { class: "rail", x1: x(word.start), x2: x(word.end), y1: TOP - 10, y2: TOP - 10 }));
  const characters = charactersOf[word.index];
  const edges = new Set(characters.flatMap(([start, end]) => [start, end]));
  for (let byte = word.start; byte <= word.end; byte++) {
    const isEdge = edges.has(byte);
    drawing.append(
      svg("line", { class: "drop", x1: x(byte), x2: x(byte), y1: TOP - 8, y2: TOP + rows * ROW }),
      svg("circle", { class: isEdge ? "node" : "node inner", cx: x(byte), cy: TOP - 10, r: isEdge ? 3 : 2 }),
    );
  }
  for (const [start, end, text] of characters) {
    const [shown, isMark] = visibleCharacter(text);
    const label = svg(
      "text",
      { class: isMark ? "character soft" : "character", x: (x(start) + x(end)) / 2, y: 12 },
      shown,
    );
    fit(label, shown, (end - start) * CELL - 2, 14);
    drawing.append(label);
  }
  for (const item of arcs) {
    const [start, end, id] = item.arc;
    const left = x(start) + 1.5,
      right = x(end) - 1.5,
      y = TOP + item.row * ROW,
      bottom = y + ROW - 5;
    item.shape = svg("path", {
      class: `arc${item.canonical ? " canonical" : ""}${item.crossing ? " crossing" : ""}`,
      d:
        `M${left},${bottom} V${y + 8} Q${left},${y} ${left + 8},${y} ` +
        `H${right - 8} Q${right},${y} ${right},${y + 8} V${bottom} Z`,
    });
    const text = visibleText(id);
    const label = svg("text", { x: (left + right) / 2, y: (y + bottom) / 2 + 1, direction: "ltr" }, text);
    fit(label, text, (end - start) * CELL - 6, 12);
    drawing.append(item.shape, label);
    item.shape.addEventListener("pointerenter", () => readOut(word, item));
    item.shape.addEventListener("pointerleave", () => readOut(word, null));
  }
  fillArcs(made);
}

let words = [];

function showLattice() {
  words = tables.words.map(makeWord);
  byId("words").append(...words.map(({ node }) => node));
  const observer = new IntersectionObserver(
    (entries) => {
      const nodes = new Set(entries.filter((entry) => entry.isIntersecting).map((entry) => entry.target));
      for (const made of words) if (nodes.has(made.node)) drawWord(made);
    },
    { rootMargin: "400px" },
  );
  for (const { node } of words) observer.observe(node);
  addEventListener("beforeprint", () => words.forEach(drawWord));
  const entry = (kind, text) => element("span", {}, element("i", { class: `swatch ${kind}` }), text);
  byId("legend").append(
    entry("canonical", "canonical"),
    entry("weight", "taken more often"),
    ...(words.some(({ arcs }) => arcs.some((item) => item.crossing))
      ? [entry("crossing", "crosses canonical tokens")]
      : []),
  );
  byId("words").addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
    const arcs = words[state.word].arcs;
    if (event.key in steps) selectWord(Math.max(0, Math.min(words.length - 1, state.word + steps[event.key])), true);
    else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && arcs.length) {
      const count = arcs.length,
        current = words[state.word].current;
      words[state.word].current =
        event.key === "ArrowDown" ? (current + 1) % count : (current - 1 + count + (current < 0)) % count;
      readOut(tables.words[state.word], arcs[words[state.word].current]);
    } else return;
    event.preventDefault();
  });
}

const HINT = "Point at an arc, or use the arrow keys: left and right for words, up and down for arcs.";

let pointed = null; // the word and the arc that are read out

/** Says what an arc of a word is, and marks it; without one, how to choose it. */
function readOut(word, item) {
  drawWord(words[word.index]);
  for (const { shape } of words[word.index].arcs) shape.classList.toggle("current", shape === item?.shape);
  pointed = item && { word, item };
  if (!item) {
    byId("readout").textContent = HINT;
    return;
  }
  const [start, end, id] = item.arc;
  byId("readout").replaceChildren(
    element("bdi", {}, `“${visibleText(id)}”`),
    `: id ${id}, bytes ${start} to ${end}, taken in ${percent(item.weight)} of the samples`,
    item.canonical ? "; canonical" : "",
  );
}

/** A part as one number, for look-ups. */
const keyOfArc = ([start, end, id]) => (start * 8192 + end) * 2 ** 21 + id;

let timesTaken = new Map(); // by arc, how many of the samples take it

/** Fills the arcs that are drawn by how many of the samples take them. */
function weighArcs() {
  timesTaken = new Map();
  for (const parts of samples())
    for (const part of parts) {
      const key = keyOfArc(part);
      timesTaken.set(key, (timesTaken.get(key) ?? 0) + 1);
    }
  words.filter(({ isDrawn }) => isDrawn).forEach(fillArcs);
  byId("lattice-badge").textContent = method().takes_p ? `shares in ${samplesText()}, ± ${halfInterval()} points` : "";
  if (pointed) readOut(pointed.word, pointed.item);
  else byId("readout").textContent = HINT;
}

function fillArcs({ arcs }) {
  for (const item of arcs) {
    item.weight = (timesTaken.get(keyOfArc(item.arc)) ?? 0) / samples().length;
    item.shape.setAttribute("fill-opacity", item.weight === 0 ? 0 : 0.06 + 0.5 * item.weight);
  }
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
