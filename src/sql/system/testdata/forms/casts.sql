SELECT 'orders'::regclass, 'orders'::regclass::oid, 16385::regclass, 'int4'::regtype, 'timestamp'::regtype::oid, 0::regclass;
SELECT 'nothing'::regclass;
SELECT to_regclass('nothing'), to_regclass('pg_catalog.pg_class');
SELECT relname FROM pg_class WHERE oid = 'public.accounts'::regclass;
SELECT c.tableoid::regclass, c.oid::regclass::text FROM pg_class c WHERE relname = 'orders';
SELECT 'abc'::"char", 'a'::name, 12::oid, '{1,2}'::int4[], ARRAY['a']::text[];
