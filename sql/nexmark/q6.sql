-- Prices per seller: the average price of the last ten auctions that each person sold, with every auction that ended. The rows
-- before a row change when an earlier auction gets a better bid.
CREATE MATERIALIZED VIEW q6 AS
SELECT seller, id, AVG(price) OVER (PARTITION BY seller ORDER BY date_time, id ROWS 10 PRECEDING) AS average_price
FROM (
  SELECT auction.id, auction.seller, bid.price, bid.date_time
  FROM auction
  JOIN bid ON bid.auction = auction.id AND bid.date_time BETWEEN auction.date_time AND auction.expires
  QUALIFY ROW_NUMBER() OVER (PARTITION BY auction.id, auction.seller ORDER BY bid.price DESC, bid.date_time) = 1
) AS sold;
