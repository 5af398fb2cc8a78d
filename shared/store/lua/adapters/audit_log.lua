-- Included after common.lua in the scripts that change adapters. Writes the audit log.
local MAX_CHANGES = 10000

-- Add a change of a name to the audit log. `by` is its author. `from` and `to` are versions or other
-- values, or '' if there is none.
local function record_change(action, name, by, from, to)
  redis.call('XADD', P .. 'changes', 'MAXLEN', '~', MAX_CHANGES, '*', 'action', action,
    'adapter', name, 'by', by, 'from', from or '', 'to', to or '')
end
