-- Opens what is built beside a partition, or begins it. KEYS: the partition's watermark, that of
-- what is built. ARGV: builder, epoch of what is built, buckets, 'take' or '' (who only goes on
-- must not take it from another builder).
-- Reply: 'ok', its generation, generations that are to be removed; 'moved', generation.
local have = redis.call('HMGET', KEYS[2], 'epoch', 'gen', 'by')
local about = redis.call('HMGET', KEYS[1], 'epoch', 'gens', 'old')
if have[1] then
  if have[3] ~= ARGV[1] then
    if ARGV[4] ~= 'take' then
      return {'moved', have[2]}
    end
    redis.call('HSET', KEYS[2], 'by', ARGV[1])
  end
  return {'ok', have[2], about[3] or ''}
end
-- A number is given once. Where the watermark was lost the numbers begin again: what is left of
-- an earlier generation doesn't have the number of rows that is expected.
local n = tonumber(about[2] or 0) + 1
if about[1] then
  redis.call('HSET', KEYS[1], 'gens', n)
end
local gen = 'g' .. n .. ':'
redis.call('HSET', KEYS[2], 'epoch', ARGV[2], 'gen', gen, 'by', ARGV[1], 'buckets', ARGV[3], 'about',
  'A partition that is built beside the one in use. Everything here is derived from the log and may be deleted.')
return {'ok', gen, about[3] or ''}
