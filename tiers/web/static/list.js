import { ask, element, fail, money, picture } from "/api.js";

const wanted = new URLSearchParams(location.search);
const page = Math.max(0, Number.parseInt(wanted.get("page") ?? "0", 10) || 0);
const form = element("search");
form.q.value = wanted.get("q") ?? "";
form.by.value = wanted.get("by") === "scan" ? "scan" : "index";

function card(product) {
  const item = document.createElement("li");
  const image = document.createElement("img");
  image.src = picture(product);
  image.alt = product.category;
  const link = document.createElement("a");
  link.href = `/product?id=${product.id}`;
  link.textContent = product.name;
  const price = document.createElement("p");
  price.textContent = `${money(product.price_cents)}, ${product.stock} in stock`;
  item.append(image, link, price);
  return item;
}

function turn(id, to) {
  const query = new URLSearchParams(wanted);
  query.set("page", String(to));
  element(id).href = `/?${query}`;
  element(id).hidden = false;
}

try {
  const query = new URLSearchParams({ q: form.q.value, by: form.by.value, page: String(page) });
  const found = await ask(`/api/products?${query}`);
  element("products").replaceChildren(...found.products.map(card));
  element("status").textContent = found.products.length
    ? `Products ${page * 24 + 1} to ${page * 24 + found.products.length}`
    : "Nothing was found.";
  if (page > 0) turn("previous", page - 1);
  if (found.has_more) turn("next", page + 1);
} catch (error) {
  fail(error);
}
