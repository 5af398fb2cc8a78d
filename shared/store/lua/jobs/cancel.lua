#!lua flags=allow-oom
-- At most 51 commands.
-- ARGV: id error. Cancels a job. Returns the state after the call: 'cancelled' | 'running' if its
-- worker was notified | the final state that the job already had | false if no such job exists.
return cancel_job(read_job(ARGV[1]), ARGV[2], now_ms())
