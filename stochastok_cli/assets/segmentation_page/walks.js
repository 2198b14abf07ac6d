"use strict";
// uniform, grampa and unigram: each token is replaced, with probability p, by a segmentation of its own.

/** Each token is, with probability p, replaced by a segmentation: one that `walk` draws, or of the list `best`. */
const walkMethod = {
  draw(tables, method, p, random) {
    return tables.tokens.flatMap((token, t) => {
      const walk = walkOf(tables, method, t);
      const whole = [[token.start, token.end, token.id]];
      if (walk.ways <= 1 || random.unit() >= p) return whole;
      if (walk.best) {
        const threshold = random.unit() * walk.cumulative.at(-1);
        return walk.best[walk.cumulative.findIndex((sum) => sum > threshold)].parts;
      }
      const parts = [];
      for (let i = 0; i < token.edges.length;) {
        const [to, id] = token.edges[i][indexAt(walk.weights[i], random.unit() * walk.sums[i])];
        parts.push([token.start + i, token.start + to, id]);
        i = to;
      }
      return parts;
    });
  },
  law(tables, method, p, word) {
    const laws = [];
    for (let t = word.first; t < word.last; t++) {
      const token = tables.tokens[t],
        walk = walkOf(tables, method, t);
      const whole = [[token.start, token.end, token.id]];
      if (walk.ways <= 1) {
        laws.push([[whole, 1]]);
        continue;
      }
      walk.law ??= replacementLaw(token, walk);
      if (!walk.law) return null;
      const law = walk.law.map(([parts, q]) => [parts, q * p]);
      const same = law.find(([parts]) => keyOf(parts) === keyOf(whole));
      if (same) same[1] += 1 - p;
      else law.push([whole, 1 - p]);
      laws.push(law.filter(([, q]) => q > 0));
    }
    return productOf(laws);
  },
  /** The expected number of tokens at p. */
  expected(tables, method, p) {
    return tables.tokens.reduce((sum, token, t) => {
      const walk = walkOf(tables, method, t);
      return sum + (walk.ways <= 1 ? 1 : 1 - p + p * walk.expected);
    }, 0);
  },
};

/** The law of what replaces a token, as [parts, probability]; null if there are too many segmentations. */
function replacementLaw(token, walk) {
  if (walk.best) {
    const sum = walk.cumulative.at(-1);
    return walk.best.map(({ parts }, i) => [parts, (walk.cumulative[i] - (walk.cumulative[i - 1] ?? 0)) / sum]);
  }
  const all = allSegmentations([token]);
  return (
    all &&
    all
      .map((parts) => [
        parts,
        parts.reduce((product, [start, end, id]) => {
          const i = start - token.start;
          const e = token.edges[i].findIndex(([to, piece]) => to === end - token.start && piece === id);
          return (product * walk.weights[i][e]) / walk.sums[i];
        }, 1),
      ])
      .filter(([, q]) => q > 0)
  );
}

/** The transition weights in a token (`path_counting_weights`, `score_weights`), or its best segmentations. */
function walkOf(tables, method, t) {
  const key = `${method.name}/${t}`;
  if (!tables.walks.has(key)) tables.walks.set(key, makeWalk(tables, method, tables.tokens[t]));
  return tables.walks.get(key);
}

function makeWalk(tables, method, token) {
  const n = token.edges.length;
  const weights = token.edges.map((edges) => edges.map(() => 0));
  const sums = new Array(n + 1).fill(0),
    ways = new Array(n + 1).fill(0),
    logSums = new Array(n + 1).fill(-Infinity);
  const score = (id) => tables.data.scores[id] ?? -Infinity;
  const { temperature, min_length: minLength, alpha, nbest } = method.values;
  ways[n] = 1;
  logSums[n] = 0;
  for (let i = n - 1; i >= 0; i--) {
    const lengths = token.edges[i].filter(([to]) => ways[to] > 0).map(([to]) => to - i);
    const least = Math.min(minLength ?? 1, Math.max(0, ...lengths));
    const logWeights = token.edges[i].map(([to, id]) => {
      if (ways[to] === 0 || to - i < least) return -Infinity;
      if (method.family === "uniform") return Math.log(ways[to]);
      if (method.family === "grampa") return Math.log(ways[to]) / temperature;
      return alpha * score(id) + logSums[to];
    });
    const best = Math.max(-Infinity, ...logWeights);
    if (best === -Infinity) continue;
    token.edges[i].forEach(([to], e) => {
      if (logWeights[e] === -Infinity) return;
      weights[i][e] = method.family === "uniform" ? ways[to] : Math.exp(logWeights[e] - best);
      sums[i] += weights[i][e];
      ways[i] += ways[to];
    });
    logSums[i] = best + Math.log(sums[i]);
  }
  const walk = { weights, sums, ways: ways[0] };
  if (method.family === "unigram" && nbest > 0 && ways[0] > 1) {
    walk.best = bestSegmentations(token, score, nbest);
    let sum = 0;
    walk.cumulative = walk.best.map((path) => (sum += Math.exp(alpha * (path.score - walk.best[0].score))));
    walk.expected = walk.best.reduce(
      (mean, { parts, score: own }) => mean + (parts.length * Math.exp(alpha * (own - walk.best[0].score))) / sum,
      0,
    );
    return walk;
  }
  const expected = new Array(n + 1).fill(0); // parts from a position to the end
  for (let i = n - 1; i >= 0; i--) {
    token.edges[i].forEach(([to], e) => {
      if (weights[i][e] > 0) expected[i] += (weights[i][e] / sums[i]) * (1 + expected[to]);
    });
  }
  walk.expected = expected[0];
  return walk;
}

/** The `most` segmentations with the best sums of scores; of equals, first that whose next piece is longer. */
function bestSegmentations(token, score, most) {
  const n = token.edges.length;
  const best = Array.from({ length: n + 1 }, () => []);
  best[n] = [{ score: 0, parts: [] }];
  for (let i = n - 1; i >= 0; i--) {
    const paths = [...token.edges[i]].reverse().flatMap(([to, id]) =>
      best[to].map((rest) => ({
        score: score(id) + rest.score,
        parts: [[token.start + i, token.start + to, id], ...rest.parts],
      })),
    );
    best[i] = paths
      .filter((path) => path.score > -Infinity)
      .sort((a, b) => b.score - a.score)
      .slice(0, most);
  }
  return best[0];
}
