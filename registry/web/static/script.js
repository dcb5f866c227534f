"use strict";
// Buttons that copy, and a filter that answers while one types. Everything else works without this.
(() => {
  const said = document.getElementById("said");

  const copyText = async (text) => {
    if (navigator.clipboard) {
      await navigator.clipboard.writeText(text);
      return true;
    }
    const area = document.createElement("textarea"); // plain http has no clipboard API
    area.value = text;
    area.className = "hide";
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  };

  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      let done = false;
      try {
        done = await copyText(button.dataset.copy);
      } catch { /* said below */ }
      button.focus();
      button.textContent = done ? "Copied" : "Not copied";
      said.textContent = button.textContent;
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }

  for (const form of document.querySelectorAll("form[data-live]")) {
    let timer, asked;
    const refresh = async () => {
      const url = "?" + new URLSearchParams(new FormData(form));
      asked?.abort();
      asked = new AbortController();
      try {
        const answer = await fetch(url, { signal: asked.signal });
        if (!answer.ok) return;
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const fresh = page.getElementById(form.dataset.live);
        document.getElementById(form.dataset.live).replaceWith(fresh);
        said.textContent = fresh.querySelector(".summary")?.textContent ?? "";
        history.replaceState(null, "", url);
      } catch (e) {
        if (e.name !== "AbortError") throw e;
      }
    };
    form.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(refresh, 120);
    });
  }
})();
