-- The role that the service runs as on PostgreSQL: it can add to the flip log and can never change or remove an entry.
--
-- Run it as the owner of the tables (who also runs `haltline-server migrate`), in the service's database, after each
-- migration; running it again changes nothing. With -1, one transaction, a running node never misses its rights:
--
--     psql "$OWNER_URL" -1 -v ON_ERROR_STOP=1 -f config/postgres-roles.sql
--     psql "$OWNER_URL" -c '\password haltline_service'
--
-- and let HALTLINE_DATABASE_URL name haltline_service. Keep the owner's password away from the service: an owner can
-- drop the triggers that make the log append-only.

DO $$
BEGIN
    CREATE ROLE haltline_service LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;  -- made before, or at this very moment by another database
END $$;

-- Everybody may make tables in `public` on servers upgraded from before PostgreSQL 15.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO haltline_service;

REVOKE ALL ON log, log_head, targets, holds, tokens, stamp_secrets, outcomes, alembic_version
    FROM PUBLIC, haltline_service;

-- The log: no UPDATE, DELETE, TRUNCATE, TRIGGER or REFERENCES.
GRANT SELECT, INSERT ON log TO haltline_service;

-- What the log folds to, and the tokens: rebuilt or revoked, never truncated. A released hold is deleted.
GRANT SELECT, INSERT, UPDATE ON log_head, targets TO haltline_service;
GRANT SELECT, INSERT, DELETE ON holds TO haltline_service;
GRANT SELECT, INSERT, UPDATE (revoked_at) ON tokens TO haltline_service;

-- Beside the log: what stamp keys are derived from, and what the clean-up of stopped runs came to. Both are written once
-- and never changed; old ones are removed.
GRANT SELECT, INSERT, DELETE ON stamp_secrets, outcomes TO haltline_service;

-- The service compares the schema with its own at start, and never migrates.
GRANT SELECT ON alembic_version TO haltline_service;
