-- The log (head, entry, tile) and the table beside it (row, revision). Texts compare by their bytes: COLLATE "C".
-- Nothing here names a role but the triggers; who may do what is in roles.sql.

CREATE TABLE hauberk.head (
  log text COLLATE "C" PRIMARY KEY,
  size bigint NOT NULL CHECK (size >= 0),
  frontier bytea NOT NULL,
  checkpoint bytea NOT NULL,
  epoch bigint NOT NULL
) WITH (fillfactor = 20);  -- rewritten by every append: each new version fits beside the old one

CREATE TABLE hauberk.entry (
  log text COLLATE "C" NOT NULL,
  position bigint NOT NULL CHECK (position >= 0),
  id bytea NOT NULL,
  stream text COLLATE "C" NOT NULL,
  type text COLLATE "C" NOT NULL,
  version bigint NOT NULL,
  leaf bytea NOT NULL,
  meta bytea NOT NULL,
  public bytea NOT NULL,
  sealed bytea NOT NULL,
  statement bytea NOT NULL,
  CONSTRAINT entry_position PRIMARY KEY (log, position),
  CONSTRAINT entry_id UNIQUE (log, id),
  CONSTRAINT entry_stream UNIQUE (log, stream, version)
);
CREATE INDEX entry_type ON hauberk.entry (log, type, position);
ALTER TABLE hauberk.entry ALTER sealed SET STORAGE EXTERNAL;  -- ciphertext does not compress
ALTER TABLE hauberk.entry ALTER leaf SET STATISTICS 0, ALTER meta SET STATISTICS 0, ALTER public SET STATISTICS 0,
  ALTER sealed SET STATISTICS 0, ALTER statement SET STATISTICS 0;  -- nothing is looked for in them

CREATE TABLE hauberk.tile (
  log text COLLATE "C" NOT NULL,
  level bigint NOT NULL,
  number bigint NOT NULL,
  data bytea NOT NULL,
  PRIMARY KEY (log, level, number)
) WITH (autovacuum_vacuum_scale_factor = 0.01, toast.autovacuum_vacuum_scale_factor = 0.01);
ALTER TABLE hauberk.tile ALTER data SET STORAGE EXTERNAL;  -- neither do hashes

CREATE TABLE hauberk.row (
  space text COLLATE "C" NOT NULL,
  key bytea NOT NULL,
  value bytea NOT NULL,
  revision bigint NOT NULL,
  expires double precision,
  PRIMARY KEY (space, key)
);
CREATE INDEX row_expires ON hauberk.row (expires) WHERE expires IS NOT NULL;
ALTER TABLE hauberk.row ALTER value SET STATISTICS 0;  -- or samples of it, wrapped keys, would be in pg_statistic

CREATE TABLE hauberk.revision (
  one integer PRIMARY KEY CHECK (one = 1),
  number bigint NOT NULL
) WITH (fillfactor = 20);
INSERT INTO hauberk.revision VALUES (1, 0);

-- What is in the log stays as it is, whoever asks. These come on top of the privileges in roles.sql: they also bind the
-- owner of the tables, until it takes them away, and are `ENABLE ALWAYS` so that no session setting passes them by.

CREATE FUNCTION hauberk.refuse() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  RAISE EXCEPTION '% of hauberk.% is refused', TG_OP, TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE FUNCTION hauberk.refuse_but_retention() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  IF to_regrole('hauberk_retention') IS NULL OR NOT pg_has_role('hauberk_retention', 'USAGE') THEN
    RAISE EXCEPTION '% of hauberk.% is for hauberk_retention', TG_OP, TG_TABLE_NAME
      USING ERRCODE = 'insufficient_privilege';
  END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION hauberk.only_forward() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  IF NEW.log <> OLD.log OR NEW.size < OLD.size OR NEW.epoch < OLD.epoch THEN
    RAISE EXCEPTION 'the head of a log only moves forward' USING ERRCODE = 'insufficient_privilege';
  END IF;
  RETURN NEW;
END $$;

CREATE FUNCTION hauberk.only_longer() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  IF (NEW.log, NEW.level, NEW.number) <> (OLD.log, OLD.level, OLD.number)
     OR substring(NEW.data FROM 1 FOR octet_length(OLD.data)) <> OLD.data THEN
    RAISE EXCEPTION 'a tile only grows' USING ERRCODE = 'insufficient_privilege';
  END IF;
  RETURN NEW;
END $$;

CREATE TRIGGER entry_fixed BEFORE UPDATE OR TRUNCATE ON hauberk.entry
  FOR EACH STATEMENT EXECUTE FUNCTION hauberk.refuse();
CREATE TRIGGER entry_kept BEFORE DELETE ON hauberk.entry
  FOR EACH STATEMENT EXECUTE FUNCTION hauberk.refuse_but_retention();
CREATE TRIGGER tile_kept BEFORE DELETE OR TRUNCATE ON hauberk.tile
  FOR EACH STATEMENT EXECUTE FUNCTION hauberk.refuse();
CREATE TRIGGER tile_grows BEFORE UPDATE ON hauberk.tile
  FOR EACH ROW EXECUTE FUNCTION hauberk.only_longer();
CREATE TRIGGER head_kept BEFORE DELETE OR TRUNCATE ON hauberk.head
  FOR EACH STATEMENT EXECUTE FUNCTION hauberk.refuse();
CREATE TRIGGER head_forward BEFORE UPDATE ON hauberk.head
  FOR EACH ROW EXECUTE FUNCTION hauberk.only_forward();

ALTER TABLE hauberk.entry ENABLE ALWAYS TRIGGER entry_fixed;
ALTER TABLE hauberk.entry ENABLE ALWAYS TRIGGER entry_kept;
ALTER TABLE hauberk.tile ENABLE ALWAYS TRIGGER tile_kept;
ALTER TABLE hauberk.tile ENABLE ALWAYS TRIGGER tile_grows;
ALTER TABLE hauberk.head ENABLE ALWAYS TRIGGER head_kept;
ALTER TABLE hauberk.head ENABLE ALWAYS TRIGGER head_forward;
