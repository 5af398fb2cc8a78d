/* Sphinx' scores, and pages for users before decisions and the changelog. */
var Scorer = {
  score: ([page, , , , score]) => score + (page.startsWith("ops/docs/") || page === "README" ? 100 : 0),
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
