-- The shop's tables. Loaded once, when the image is built.

CREATE TABLE product (
    id          bigint PRIMARY KEY,
    name        text   NOT NULL,
    category    text   NOT NULL,
    description text   NOT NULL,
    -- Money is counted in cents, which have no rounding.
    price_cents bigint NOT NULL CHECK (price_cents > 0),
    stock       bigint NOT NULL CHECK (stock >= 0),
    words       tsvector GENERATED ALWAYS AS (to_tsvector('english', name || ' ' || description)) STORED
);

CREATE INDEX product_words ON product USING gin (words);

CREATE TABLE shop_order (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- What the client calls this order: the same name twice is the same order.
    idempotency_key text        NOT NULL UNIQUE CHECK (length(idempotency_key) BETWEEN 1 AND 64),
    -- SHA-256 of what was ordered under that name, so that another order under it is seen.
    digest          bytea       NOT NULL,
    customer        text        NOT NULL,
    total_cents     bigint      NOT NULL DEFAULT 0,
    created         timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE shop_order_item (
    order_id    bigint NOT NULL REFERENCES shop_order (id) ON DELETE CASCADE,
    product_id  bigint NOT NULL REFERENCES product (id),
    quantity    bigint NOT NULL CHECK (quantity > 0),
    price_cents bigint NOT NULL,
    PRIMARY KEY (order_id, product_id)
);
