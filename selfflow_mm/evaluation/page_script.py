"""The few lines of JavaScript of a gallery page; without them its players still work, by their own buttons."""

from __future__ import annotations

#: Videos become blobs, because some browsers want to read them in ranges, which a data: URL does not give. A tap (or
#: Enter) plays one with sound from its start and silences the others. Who asked for less motion keeps plain players.
GALLERY_SCRIPT = """
const films = [...document.querySelectorAll("video")];
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
for (const film of films) {
  const [head, data] = film.src.split(",");
  const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
  film.src = URL.createObjectURL(new Blob([bytes], {type: head.slice(5).split(";")[0]}));
  if (calm) { film.autoplay = false; continue; }
  film.controls = false;
  film.tabIndex = 0;
  film.title = "Tap for sound";
  film.setAttribute("role", "button");
  const tap = () => {
    const loud = film.muted;
    for (const other of films) { other.muted = true; other.classList.remove("loud"); }
    if (loud) film.currentTime = 0;
    film.muted = !loud;
    film.classList.toggle("loud", loud);
    film.play().catch(() => {});
  };
  film.addEventListener("click", tap);
  film.addEventListener("keydown", e => {
    if (e.key === "Enter" || e.key === " ") { e.preventDefault(); tap(); }
  });
  film.play().catch(() => {});
}
""".strip()
