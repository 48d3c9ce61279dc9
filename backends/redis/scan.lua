-- Reads entries in order. KEYS: the watermark, a sorted set, its hash of values.
-- ARGV: generation, builder, least, greatest, most.
-- Reply: 'ok', epoch, n, keys, values (none at all when no entry has one); 'none'; 'moved',
-- generation; 'lost', why.
local base = #KEYS[1] + #ARGV[1]
local have = redis.call('HMGET', KEYS[1], 'epoch', 'n', 'lost', '#' .. string.sub(KEYS[2], base), '#' .. string.sub(KEYS[3], base), 'gen', 'by')
if not have[1] then
  return {'none'}
end
if (have[6] or '') ~= ARGV[1] or (have[7] or '') ~= ARGV[2] then
  return {'moved', have[6] or ''}
end
if have[3] then
  return {'lost', have[3]}
end
for k = 2, 3 do
  local want, n = tonumber(have[k + 2] or 0), redis.pcall(k == 2 and 'ZCARD' or 'HLEN', KEYS[k])
  if n ~= want then
    local why = KEYS[k] .. ' has ' .. (type(n) == 'table' and n.err or n) .. ' rows instead of ' .. want
    redis.pcall('HSET', KEYS[1], 'lost', why)
    return {'lost', why}
  end
end
local keys, values = redis.call('ZRANGEBYLEX', KEYS[2], ARGV[3], ARGV[4], 'LIMIT', 0, ARGV[5]), {}
if tonumber(have[5] or 0) > 0 then
  for from = 1, #keys, 1000 do
    local part = redis.call('HMGET', KEYS[3], unpack(keys, from, math.min(from + 999, #keys)))
    for j = 1, #part do
      values[#values + 1] = part[j]
    end
  end
end
return {'ok', have[1], have[2], keys, values}
