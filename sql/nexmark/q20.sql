-- Bids with their auctions, of one category. Two streams of wide rows joined without a bound in time.
CREATE MATERIALIZED VIEW q20 AS
SELECT bid.auction, bid.bidder, bid.price, bid.channel, bid.url, bid.date_time AS bid_time, bid.extra AS bid_extra,
  auction.item_name, auction.description, auction.initial_bid, auction.reserve, auction.date_time, auction.expires,
  auction.seller, auction.category, auction.extra
FROM bid
JOIN auction ON auction.id = bid.auction
WHERE auction.category = 10;
