-- 20,000 products, the same in each build: what is random comes from the product's own number.

INSERT INTO product (id, name, category, description, price_cents, stock)
SELECT
    n,
    colours[1 + n % 10] || ' ' || materials[1 + (n / 10) % 10] || ' ' || things[1 + (n / 100) % 20] || ' no. ' || n,
    categories[1 + (n / 100) % 20 / 5],
    'A ' || adjectives[1 + (hashint8(n) & 7)] || ' ' || things[1 + (n / 100) % 20] || ' of ' || materials[1 + (n / 10) % 10]
        || ', made for ' || places[1 + (hashint8(n + 1) & 7)] || ' and for ' || places[1 + (hashint8(n + 2) & 7)]
        || '. It comes in ' || colours[1 + n % 10] || ' and lasts ' || 1 + (hashint8(n + 3) & 15) || ' years.',
    199 + (hashint8(n + 4) & 16383),
    1000000
FROM
    generate_series(1::bigint, 20000) AS n,
    (SELECT
        ARRAY['red', 'blue', 'green', 'black', 'white', 'amber', 'silver', 'violet', 'brown', 'turquoise'] AS colours,
        ARRAY['oak', 'steel', 'wool', 'linen', 'glass', 'copper', 'leather', 'bamboo', 'marble', 'cotton'] AS materials,
        ARRAY['lamp', 'chair', 'table', 'shelf', 'clock', 'kettle', 'bowl', 'knife', 'pan', 'mug',
              'scarf', 'jacket', 'hat', 'glove', 'bag', 'tent', 'rope', 'compass', 'lantern', 'paddle'] AS things,
        ARRAY['home', 'kitchen', 'clothing', 'outdoors'] AS categories,
        ARRAY['sturdy', 'light', 'plain', 'generous', 'handsome', 'quiet', 'warm', 'clever'] AS adjectives,
        ARRAY['the garden', 'the harbour', 'long evenings', 'early mornings', 'the mountains', 'small rooms',
              'guests', 'the workshop'] AS places) AS words;

ANALYZE product;
