// Sample photographs that ship with the server.

import { Problem, element, fetchWithKey, problemOf } from "./api.js";

const SAMPLES = [
  { name: "cat.jpg", about: "A cat" },
  { name: "coffee.jpg", about: "A cup of coffee" },
  { name: "astronaut.jpg", about: "An astronaut" },
  { name: "rocket.jpg", about: "A rocket" },
];

/** Buttons with the samples; `choose` is called with the one that was clicked. */
export function showSamples(place, choose) {
  place.replaceChildren(...SAMPLES.map((sample) => {
    const picture = element("img", { src: `/assets/${sample.name}`, alt: sample.about, width: 108, height: 78 });
    const button = element("button", { type: "button", title: sample.about }, picture);
    button.addEventListener("click", () => choose(sample));
    return button;
  }));
}

export async function fetchSample({ name }) {
  if (!SAMPLES.some((sample) => sample.name === name)) throw new Problem(`There is no sample “${name}”.`);
  const response = await fetchWithKey(`/assets/${name}`);
  if (!response.ok) throw await problemOf(response);
  return new File([await response.blob()], name, { type: "image/jpeg" });
}
