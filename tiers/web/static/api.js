// What both pages ask the application tier, and how they show what it took.

export const element = (id) => document.getElementById(id);

export const money = (cents) =>
  (cents / 100).toLocaleString("en", { style: "currency", currency: "EUR" });

export const picture = (product) => `/pictures/${encodeURIComponent(product.category)}.svg`;

/** Asks, and gives the answer's JSON; a refusal is an error with the server's own words. */
export async function ask(path, options = {}) {
  const began = performance.now();
  const response = await fetch(path, options);
  const took = performance.now() - began;
  const parts = (response.headers.get("server-timing") ?? "").split(",").map((part) => part.trim());
  element("timing").textContent =
    `${options.method ?? "GET"} ${path}: ${took.toFixed(1)} ms; ${parts.join(", ")}`;
  const body = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (!response.ok) throw new Error(body.error);
  return body;
}

export function fail(error) {
  const status = element("status");
  status.textContent = error.message;
  status.className = "failed";
}
