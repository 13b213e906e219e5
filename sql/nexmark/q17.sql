-- Bids per auction and day: how many of each class of price, and the least, greatest, average and sum.
CREATE MATERIALIZED VIEW q17 AS
SELECT auction, to_char(date_time, 'YYYY-MM-DD') AS day,
  COUNT(*) AS bids,
  COUNT(*) FILTER (WHERE price < 10000) AS low_bids,
  COUNT(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS middle_bids,
  COUNT(*) FILTER (WHERE price >= 1000000) AS high_bids,
  MIN(price) AS least, MAX(price) AS greatest, AVG(price) AS average, SUM(price) AS total
FROM bid
GROUP BY auction, to_char(date_time, 'YYYY-MM-DD');
