-- names that columns get are no obstacle to the clauses around them
SELECT length(relname), count(*) FROM pg_class WHERE oid BETWEEN 16384 AND 20000 GROUP BY length(relname) ORDER BY length(relname);
SELECT relkind, max(oid) FROM pg_class WHERE oid BETWEEN 16384 AND 20000 GROUP BY relkind HAVING max(oid) > 16385 ORDER BY max(oid) DESC;
SELECT DISTINCT upper(relkind) FROM pg_class WHERE oid >= 16384 ORDER BY upper(relkind);
SELECT relkind, count(*) FROM pg_class WHERE oid >= 16384 GROUP BY relkind ORDER BY count DESC, relkind;
SELECT relkind::text FROM pg_class WHERE oid >= 16384 GROUP BY relkind::text ORDER BY relkind;
SELECT (reltuples / 2)::int, relnatts::text, count(*) FROM pg_class WHERE oid BETWEEN 16384 AND 20000 GROUP BY reltuples, relnatts HAVING relnatts > 3 ORDER BY 1;
SELECT s.count, s.max FROM (SELECT count(*), max(relnatts) FROM pg_class WHERE oid BETWEEN 16384 AND 20000) s;
SELECT row_number() OVER (ORDER BY relname), relname FROM pg_class WHERE relkind = 'm';
SELECT a.relname, b.relname FROM pg_class a JOIN pg_class b ON a.oid = b.oid WHERE a.relkind = 'm';
SELECT a.*, a.nspname FROM pg_namespace a ORDER BY a.nspname LIMIT 1;
SELECT CASE WHEN relkind = 'm' THEN 1 ELSE 2 END, CASE relkind WHEN 'm' THEN 1 END FROM pg_class WHERE relname IN ('orders', 'revenue') ORDER BY relname;
WITH x AS (SELECT count(*) FROM pg_class WHERE relkind = 'm') SELECT count FROM x;
SELECT count(*) FROM pg_class WHERE relkind = 'm' UNION ALL SELECT 2 ORDER BY 1;
VALUES (1, 'a'), (2, 'b');
SELECT extract(year FROM TIMESTAMP '2024-01-02'), 1::int8, 'x' || 'y', true, INTERVAL '1 day', -5, 1 + 1;
