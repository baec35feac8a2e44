import { ask, element, fail, money, picture } from "/api.js";

const id = Number.parseInt(new URLSearchParams(location.search).get("id") ?? "", 10);

async function show() {
  const product = await ask(`/api/products/${id}`);
  document.title = `${product.name} – the isolab shop`;
  element("picture").src = picture(product);
  element("name").textContent = product.name;
  element("description").textContent = product.description;
  element("price").textContent = money(product.price_cents);
  element("stock").textContent = product.stock;
  element("status").textContent = "";
  element("product").hidden = false;
}

// One key for one order, however often the button is pressed; a new one after it is placed.
let key = newKey();

function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

element("order").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  const said = element("ordered");
  try {
    const order = await ask("/api/orders", {
      method: "POST",
      headers: { "Content-Type": "application/json", "Idempotency-Key": key },
      body: JSON.stringify({
        customer: form.customer.value,
        items: [{ product: id, quantity: Number.parseInt(form.quantity.value, 10) }],
      }),
    });
    key = newKey();
    said.className = "";
    said.textContent = `Order ${order.id} is placed: ${money(order.total_cents)}. Thank you, ${order.customer}.`;
    await show();
  } catch (error) {
    said.className = "failed";
    said.textContent = error.message;
  }
});

show().catch(fail);
