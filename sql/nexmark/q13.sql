-- Side input: bids with what a table says about their auction's number. The table can be changed at any time, and the view follows.
CREATE TABLE IF NOT EXISTS side_input (key BIGINT PRIMARY KEY, value TEXT);
INSERT INTO side_input SELECT key, 'value ' || key FROM generate_series(0, 9999) AS numbers (key) ON CONFLICT (key) DO NOTHING;

CREATE MATERIALIZED VIEW q13 AS
SELECT bid.auction, bid.bidder, bid.price, bid.date_time, side_input.value
FROM bid
JOIN side_input ON side_input.key = bid.auction % 10000;
