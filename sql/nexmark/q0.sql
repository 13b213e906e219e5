-- Pass-through: what it costs to take a row in and show it again.
CREATE MATERIALIZED VIEW q0 AS
SELECT auction, bidder, price, date_time, extra
FROM bid;
