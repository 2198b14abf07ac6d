"use strict";
// bpe-dropout and maxmatch-dropout: pretokens and words are encoded anew.

/** BPE-dropout (Provilkov et al. 2020, Algorithm 1), in each pretoken. */
const bpeDropout = {
  draw(tables, method, p, random) {
    return tables.data.segments.flatMap(([start, end, id]) => {
      if (id >= 0) return [[start, end, id]];
      let parts = singleBytes(tables, start, end);
      for (;;) {
        const merge = applicableMerges(tables, parts).find(() => random.unit() >= p);
        if (!merge) return parts;
        parts = merged(parts, merge);
      }
    });
  },
  law(tables, method, p, word) {
    const laws = tables.data.segments
      .filter(([start, end]) => start >= word.start && end <= word.end)
      .map(([start, end, id]) => (id >= 0 ? [[[[start, end, id]], 1]] : mergeLaw(tables, start, end, p)));
    return productOf(laws);
  },
};

const singleBytes = (tables, start, end) =>
  Array.from({ length: end - start }, (_, i) => [start + i, start + i + 1, tables.data.byte_ids[start + i]]);

/** The merges of neighbouring parts, the best-ranked first, the leftmost of equals. */
function applicableMerges(tables, parts) {
  const merges = [];
  for (let i = 0; i + 1 < parts.length; i++) {
    const merge = tables.merges.get(`${parts[i][2]},${parts[i + 1][2]}`);
    if (merge) merges.push({ i, ...merge });
  }
  return merges.sort((a, b) => a.rank - b.rank || a.i - b.i);
}

const merged = (parts, { i, merged: id }) => [
  ...parts.slice(0, i),
  [parts[i][0], parts[i + 1][1], id],
  ...parts.slice(i + 2),
];

/** The law of one pretoken: a merge leaves one part less, so all states with the same number of parts come together. */
function mergeLaw(tables, start, end, p) {
  const law = [];
  let states = new Map([["", [singleBytes(tables, start, end), 1]]]);
  let seen = 0;
  while (states.size > 0) {
    const next = new Map();
    for (const [parts, weight] of states.values()) {
      if (++seen > MOST_SEGMENTATIONS) return null;
      let left = weight;
      for (const merge of applicableMerges(tables, parts)) {
        const result = merged(parts, merge),
          key = keyOf(result),
          known = next.get(key);
        if (left * (1 - p) > 0) {
          if (known) known[1] += left * (1 - p);
          else next.set(key, [result, left * (1 - p)]);
        }
        left *= p;
      }
      if (left > 0) law.push([parts, left]);
    }
    states = next;
  }
  return law;
}

/** MaxMatch-dropout (Hiraoka 2022): the longest match, all but the shortest dropped with probability p. */
const maxmatchDropout = {
  draw(tables, method, p, random) {
    return tables.data.segments.flatMap(([start, end, id]) => {
      if (id >= 0) return [[start, end, id]];
      const matches = matchesIn(tables, start, end),
        parts = [];
      for (let i = start; i < end; i = parts.at(-1)[1]) {
        let chosen = matches[i - start].length - 1;
        while (chosen > 0 && random.unit() < p) chosen--;
        parts.push([i, ...matches[i - start][chosen]]);
      }
      return parts;
    });
  },
  law(tables, method, p, word) {
    const laws = tables.data.segments
      .filter(([start, end]) => start >= word.start && end <= word.end)
      .map(([start, end, id]) => {
        if (id >= 0) return [[[[start, end, id]], 1]];
        const matches = matchesIn(tables, start, end);
        const behind = new Array(end - start + 1); // by position, the law of the rest of the word
        behind[end - start] = [[[], 1]];
        for (let i = end - 1; i >= start; i--) {
          let left = 1;
          behind[i - start] = [...matches[i - start]].reverse().flatMap(([to, piece], k, list) => {
            const weight = k === list.length - 1 ? left : left * (1 - p);
            left *= p;
            return weight > 0 ? behind[to - start].map(([parts, q]) => [[[i, to, piece], ...parts], q * weight]) : [];
          });
          if (behind[i - start].length > MOST_SEGMENTATIONS) return null;
        }
        return behind[0];
      });
    return productOf(laws);
  },
};

/** The entries that match at each byte of a word and behind which it can be completed, the longest last. */
function matchesIn(tables, start, end) {
  const matches = Array.from({ length: end - start }, () => []);
  for (let i = end - 1; i >= start; i--) {
    matches[i - start] = tables.matchesFrom[i].filter(
      ([to]) => to === end || (to < end && matches[to - start].length > 0),
    );
  }
  return matches;
}
