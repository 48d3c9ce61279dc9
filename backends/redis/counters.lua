-- Reads all counters. KEYS: the watermark, the hash of counters. ARGV: generation, builder.
-- Reply: 'ok', epoch, n, names and values in turn; 'none'; 'moved', generation; 'lost', why.
local have = redis.call('HMGET', KEYS[1], 'epoch', 'n', 'lost', 'gen', 'by', rows(KEYS[1], KEYS[2]))
if not have[1] then
  return {'none'}
end
if moved(have[4], have[5]) then
  return {'moved', have[4] or ''}
end
if have[3] then
  return {'lost', have[3]}
end
local all = redis.pcall('HGETALL', KEYS[2])
local why = wrong(KEYS[2], all.err and all or #all / 2, have[6])
if why then
  return lose(why)
end
return {'ok', have[1], have[2], all}
