/* Light or dark, before anything is drawn: the visitor's own choice, else the system's. (A script, not a module.) */

(() => {
  const chosen = localStorage.getItem("openltx.theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
})();
