//go:build !race

package engine

// simSeeds is how many worlds TestSimulation tries unless DAGGER_SEEDS says otherwise.
const simSeeds = 200

const walkEvents = 600

const searchedPoints = 6
