-- Removes all rows of a partition and its watermark, and keeps the epoch. KEYS: the watermark,
-- then every container that can be. ARGV: generation, builder, epoch, buckets.
-- Reply: 'ok'; 'fenced', the later epoch; 'moved', generation.
local kept = {'epoch', 'about', 'gen', 'by', 'gens', 'old'}
local have = redis.call('HMGET', KEYS[1], unpack(kept))
if have[1] and have[1] > ARGV[3] then
  return {'fenced', have[1]}
end
if moved(have[3], have[4]) then
  return {'moved', have[3] or ''}
end
for i = 1, #KEYS, 1000 do
  redis.call('UNLINK', unpack(KEYS, i, math.min(i + 999, #KEYS)))
end
if have[1] then
  local set, n = {'buckets', ARGV[4]}, 2
  for i = 1, #kept do
    if have[i] then
      set[n + 1], set[n + 2] = kept[i], have[i]
      n = n + 2
    end
  end
  redis.call('HSET', KEYS[1], unpack(set))
end
return {'ok'}
