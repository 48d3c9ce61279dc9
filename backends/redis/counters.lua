-- Reads all counters. KEYS: the watermark, the hash of counters. ARGV: generation, builder.
-- Reply: 'ok', epoch, n, names and values in turn; 'none'; 'moved', generation; 'lost', why.
local field = '#' .. string.sub(KEYS[2], #KEYS[1] + #ARGV[1])
local have = redis.call('HMGET', KEYS[1], 'epoch', 'n', 'lost', 'gen', 'by', field)
if not have[1] then
  return {'none'}
end
if (have[4] or '') ~= ARGV[1] or (have[5] or '') ~= ARGV[2] then
  return {'moved', have[4] or ''}
end
if have[3] then
  return {'lost', have[3]}
end
local all = redis.pcall('HGETALL', KEYS[2])
local n = all.err or #all / 2
if n ~= tonumber(have[6] or 0) then
  local why = KEYS[2] .. ' has ' .. n .. ' rows instead of ' .. (have[6] or 0)
  redis.pcall('HSET', KEYS[1], 'lost', why)
  return {'lost', why}
end
return {'ok', have[1], have[2], all}
