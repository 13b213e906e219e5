-- Nexmark's auction house: the three streams that q0 to q22 read, from the built-in generator.
-- A million events are 20,000 people, 60,000 auctions and 920,000 bids, in 100 seconds of event time.
--
--   psql -h 127.0.0.1 -p 6433 -U tidegate -f sql/nexmark/streams.sql -f sql/nexmark/q5.sql

\set ON_ERROR_STOP on
\if :{?events} \else \set events 1000000 \endif

DROP STREAM IF EXISTS person, auction, bid CASCADE;

CREATE STREAM person (
  id            BIGINT,
  name          TEXT,
  email_address TEXT,
  credit_card   TEXT,
  city          TEXT,
  state         TEXT,
  date_time     TIMESTAMP(3),
  extra         TEXT,
  WATERMARK FOR date_time AS date_time - INTERVAL '4' SECOND
) WITH (connector = 'nexmark', type = 'person', events = :events);

CREATE STREAM auction (
  id          BIGINT,
  item_name   TEXT,
  description TEXT,
  initial_bid BIGINT,
  reserve     BIGINT,
  date_time   TIMESTAMP(3),
  expires     TIMESTAMP(3),
  seller      BIGINT,
  category    BIGINT,
  extra       TEXT,
  WATERMARK FOR date_time AS date_time - INTERVAL '4' SECOND
) WITH (connector = 'nexmark', type = 'auction', events = :events);

CREATE STREAM bid (
  auction   BIGINT,
  bidder    BIGINT,
  price     BIGINT,
  channel   TEXT,
  url       TEXT,
  date_time TIMESTAMP(3),
  extra     TEXT,
  WATERMARK FOR date_time AS date_time - INTERVAL '4' SECOND
) WITH (connector = 'nexmark', type = 'bid', events = :events);
