-- Who streams to the other node, and rewinds what a former primary wrote alone (pg_rewind, "Notes").
CREATE ROLE pgautofailover_replicator LOGIN REPLICATION PASSWORD :'password';
GRANT EXECUTE ON FUNCTION
    pg_ls_dir(text, boolean, boolean),
    pg_stat_file(text, boolean),
    pg_read_binary_file(text),
    pg_read_binary_file(text, bigint, bigint, boolean)
TO pgautofailover_replicator;
