-- Prices per category: the average of what auctions were sold for, which is the highest bid while they were open. A bid that
-- outdoes another takes back what the other had added to the average.
CREATE MATERIALIZED VIEW q4 AS
SELECT category, AVG(final) AS average_price
FROM (
  SELECT auction.id, auction.category, MAX(bid.price) AS final
  FROM auction
  JOIN bid ON bid.auction = auction.id AND bid.date_time BETWEEN auction.date_time AND auction.expires
  GROUP BY auction.id, auction.category
) AS sold
GROUP BY category;
