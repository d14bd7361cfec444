-- Roles for the order worker in PostgreSQL: who may do what, and why.
--
--   psql -f roles.sql "$ADMIN_URL"                       # before the first `order-worker db upgrade`: the roles
--   psql -f roles.sql "$ADMIN_URL"                       # after each `db upgrade`: rights on its tables
--   psql -v schema=shop2 -v worker=shop2_worker -f roles.sql "$ADMIN_URL"
--
-- All or nothing, and as often as you like: afterwards the three roles have the rights below on our tables, and
-- no others. ADMIN_URL is that of a superuser, or of the database's owner with CREATEROLE. Once the roles exist,
-- the migrator can run it as well, so that a pipeline needs no superuser. It sets no password: say
-- `\password order_worker`, or let another way of authentication know the roles.
--
-- The rows of the worker are those of `worker/rights.py`, which a worker compares with what it has before it
-- starts.

\set ON_ERROR_STOP on
\if :{?schema}   \else \set schema public \endif
\if :{?migrator} \else \set migrator order_worker_migrator \endif
\if :{?worker}   \else \set worker order_worker \endif
\if :{?reader}   \else \set reader order_worker_reader \endif
\if :{?operator} \else \set operator order_worker_operator \endif
-- on: workers decide a third more orders a second, and their role may write past triggers and foreign keys.
\if :{?replication_role} \else \set replication_role off \endif

BEGIN;
SET LOCAL lock_timeout = '5s';

-- 1. The roles, and what each may do besides the tables.
--    migrator  owns schema and tables: `db upgrade`, `db downgrade`, and this file
--    worker    `run`: decides orders; deletes nothing of a shop's, and adds no user and no product
--    reader    `explain`, `check`, `lag`, `orders list`, `dead-letters list|show|export`, `place --random`, and
--              `reconcile`, which compares in temporary tables; and rehearsals of the operator's commands, but for those
--              of `dead-letters redrive` and `orders reopen`, which write and roll back
--    operator  what a reader may, and the commands that change something: `catalog import`, `orders reopen`,
--              `replay`, `republish`, `dead-letters redrive|settle`, `skip`, `reconcile --repair`, `ledger restore`
SELECT format('CREATE ROLE %I LOGIN', name)
FROM (VALUES (:'migrator'), (:'worker'), (:'reader'), (:'operator')) AS wanted (name)
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec

-- The creator of a role is not always a member of it, and only a member may create a schema for it.
SELECT format('GRANT %I TO CURRENT_USER', :'migrator')
WHERE NOT pg_has_role(:'migrator', 'USAGE')
\gexec

SELECT format('CREATE SCHEMA %I AUTHORIZATION %I', :'schema', :'migrator')
WHERE NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = :'schema')
\gexec

-- PUBLIC has most of these rights by default. They are granted by name, so that you can revoke them from PUBLIC. If
-- the current role owns neither database nor schema, it grants only what is missing, or fails.
SELECT format('GRANT %s ON SCHEMA %I TO %I', kind, nspname, role)
FROM (VALUES (:'migrator', 'USAGE'), (:'migrator', 'CREATE'), (:'worker', 'USAGE'), (:'reader', 'USAGE'),
             (:'operator', 'USAGE')) AS wanted (role, kind), pg_namespace
WHERE nspname = :'schema' AND (pg_has_role(nspowner, 'USAGE') OR NOT has_schema_privilege(role, oid, kind))
\gexec
SELECT format('GRANT %s ON DATABASE %I TO %I', kind, datname, role)
FROM (VALUES (:'migrator', 'CONNECT'), (:'worker', 'CONNECT'), (:'reader', 'CONNECT'), (:'operator', 'CONNECT'),
             (:'migrator', 'TEMPORARY'), (:'reader', 'TEMPORARY'), (:'operator', 'TEMPORARY')) AS wanted (role, kind),
     pg_database
WHERE datname = current_database()
  AND (pg_has_role(datdba, 'USAGE') OR NOT has_database_privilege(role, oid, kind))
\gexec

\if :replication_role
SELECT format('GRANT SET ON PARAMETER session_replication_role TO %I', :'worker')
WHERE NOT has_parameter_privilege(:'worker', 'session_replication_role', 'SET')
\gexec
\endif

-- 2. The tables.
CREATE TEMPORARY TABLE rights (role text, name text, kinds text, why text) ON COMMIT DROP;
INSERT INTO rights VALUES
  (:'worker', 'alembic_version',      'SELECT', 'is it the version of these tables'),
  (:'worker', 'replays',              'SELECT, INSERT', 'what a replay keeps silent; a log that was replaced is replayed so'),
  (:'worker', 'skips',                'SELECT, INSERT, UPDATE', 'what was skipped; what retention deleted undecided'),
  (:'worker', 'positions',            'SELECT, INSERT, UPDATE', 'leases, and how far each partition is published'),
  (:'worker', 'withheld_outcomes',    'SELECT, INSERT, UPDATE, DELETE', 'outcomes that their topic refuses, until it takes them'),
  (:'worker', 'order_outcomes',       'SELECT, INSERT', 'the ledger; what is decided never changes'),
  (:'worker', 'users',                'SELECT, UPDATE', 'UPDATE: to lock the row, as a foreign key does'),
  (:'worker', 'products',             'SELECT, UPDATE', 'prices, and stock that it takes'),
  (:'worker', 'orders',               'SELECT, INSERT', 'SELECT: has a shop used this id; and the page'),
  (:'worker', 'order_items',          'SELECT, INSERT', 'SELECT: the page and /explain'),
  (:'worker', 'order_reopenings',     'SELECT', 'the page and /explain'),
  (:'worker', 'dead_letter_redrives', 'SELECT', 'the page, and how many dead letters are open'),
  (:'worker', 'settled_letters',      'SELECT', 'the same');
INSERT INTO rights SELECT role, name, 'SELECT', 'commands and looks'
FROM (VALUES (:'reader'), (:'operator')) AS who (role),
     unnest(ARRAY['alembic_version', 'users', 'categories', 'products', 'orders', 'order_items', 'order_outcomes',
                  'replays', 'positions', 'skips', 'withheld_outcomes', 'dead_letter_redrives', 'settled_letters',
                  'order_reopenings']) AS ours (name);
INSERT INTO rights VALUES
  (:'operator', 'users',                'INSERT, UPDATE', 'catalog import'),
  (:'operator', 'categories',           'INSERT, UPDATE', 'catalog import'),
  (:'operator', 'products',             'INSERT, UPDATE', 'catalog import; ledger restore: stock'),
  (:'operator', 'orders',               'INSERT', 'ledger restore'),
  (:'operator', 'order_items',          'INSERT', 'ledger restore'),
  (:'operator', 'order_outcomes',       'INSERT, UPDATE (event, sorted_fingerprint)', 'ledger restore; UPDATE: ledger prune drops events'),
  (:'operator', 'positions',            'INSERT, UPDATE', 'replay, skip, ledger restore'),
  (:'operator', 'replays',              'INSERT', 'replay'),
  (:'operator', 'skips',                'INSERT, UPDATE', 'skip'),
  (:'operator', 'withheld_outcomes',    'UPDATE', 'ledger restore: which were published after all'),
  (:'operator', 'dead_letter_redrives', 'INSERT, UPDATE, DELETE', 'dead-letters redrive: each letter once'),
  (:'operator', 'settled_letters',      'INSERT', 'dead-letters settle'),
  (:'operator', 'order_reopenings',     'INSERT, UPDATE, DELETE', 'orders reopen: each order once');

-- The tables that exist; before the first `db upgrade` there are none.
CREATE TEMPORARY TABLE ours ON COMMIT DROP AS
SELECT DISTINCT rights.name, pg_get_userbyid(relowner) AS owner
FROM rights JOIN pg_class ON relname = rights.name AND relnamespace = quote_ident(:'schema')::regnamespace;

SELECT format('ALTER TABLE %I.%I OWNER TO %I', :'schema', name, :'migrator')
FROM ours WHERE owner <> :'migrator'
\gexec

SELECT format('REVOKE ALL ON %I.%I FROM %I', :'schema', name, role)
FROM ours, (SELECT DISTINCT role FROM rights) AS who
\gexec

SELECT format('GRANT %s ON %I.%I TO %I', kinds, :'schema', name, role)
FROM rights JOIN ours USING (name)
\gexec

-- catalog import: afterwards, PostgreSQL's own ids have to follow those of the files.
SELECT format('GRANT USAGE, UPDATE ON SEQUENCE %s TO %I',
              pg_get_serial_sequence(format('%I.%I', :'schema', name), 'id'), :'operator')
FROM ours WHERE name IN ('users', 'categories', 'products')
\gexec

COMMIT;

SELECT role, relname AS "table", string_agg(kind, ', ' ORDER BY kind) AS rights
FROM (VALUES (:'worker'), (:'reader'), (:'operator')) AS who (role), pg_class,
     aclexplode(relacl) AS had (grantor, grantee, kind)
WHERE relnamespace = quote_ident(:'schema')::regnamespace AND grantee = quote_ident(role)::regrole AND relkind = 'r'
GROUP BY 1, 2 ORDER BY 1, 2;
