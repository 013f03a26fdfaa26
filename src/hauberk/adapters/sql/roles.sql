-- Who may do what. Applied by `hauberk database migrate` after the tables, printed by `hauberk database roles`, and safe
-- to run again. The three are groups nobody logs in as: GRANT hauberk_app TO my_service;

DO $$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['hauberk_app', 'hauberk_retention', 'hauberk_auditor'] LOOP
    IF to_regrole(name) IS NULL THEN
      BEGIN
        EXECUTE format('CREATE ROLE %I NOLOGIN', name);
      EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;  -- somebody else made it just now
      END;
    END IF;
  END LOOP;
END $$;

REVOKE ALL ON SCHEMA hauberk FROM PUBLIC, hauberk_app, hauberk_retention, hauberk_auditor;
REVOKE ALL ON ALL TABLES IN SCHEMA hauberk FROM PUBLIC, hauberk_app, hauberk_retention, hauberk_auditor;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA hauberk FROM PUBLIC;
GRANT USAGE ON SCHEMA hauberk TO hauberk_app, hauberk_retention, hauberk_auditor;
GRANT SELECT ON ALL TABLES IN SCHEMA hauberk TO hauberk_app, hauberk_retention, hauberk_auditor;

-- The application appends, moves the head forward, fills tiles, and keeps its rows; it changes and deletes no entry.
GRANT INSERT ON hauberk.entry, hauberk.tile, hauberk.head TO hauberk_app;
GRANT UPDATE (size, frontier, checkpoint, epoch) ON hauberk.head TO hauberk_app;
GRANT UPDATE (data) ON hauberk.tile TO hauberk_app;
GRANT UPDATE (number) ON hauberk.revision TO hauberk_app;
GRANT INSERT, UPDATE (value, revision, expires), DELETE ON hauberk.row TO hauberk_app;
DO $$
BEGIN
  IF current_setting('server_version_num')::int >= 170000 THEN
    EXECUTE 'GRANT MAINTAIN ON hauberk.row TO hauberk_app';  -- VACUUM, so that what was deleted is gone from the file
  END IF;
END $$;

-- Retention takes out the bodies of entries and puts them back; proofs need neither.
GRANT INSERT, DELETE ON hauberk.entry TO hauberk_retention;
