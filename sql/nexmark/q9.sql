-- Winning bids: for every auction the highest bid while it was open, and of equal ones the first.
CREATE MATERIALIZED VIEW q9 AS
SELECT auction.*, bid.auction AS bid_auction, bid.bidder, bid.price, bid.date_time AS bid_time, bid.extra AS bid_extra
FROM auction
JOIN bid ON bid.auction = auction.id AND bid.date_time BETWEEN auction.date_time AND auction.expires
QUALIFY ROW_NUMBER() OVER (PARTITION BY auction.id ORDER BY bid.price DESC, bid.date_time) = 1;
