#!/usr/bin/env python3
"""Writes backend/data/{founders,startups,documents}.jsonl: always the same companies, from the word lists below."""

import json
import random
from pathlib import Path

DATA = Path(__file__).resolve().parent.parent / "backend" / "data"

FIRST = "Amara Bjorn Carmen Dmitri Elena Farid Grace Hiro Ines Jonas Keiko Lars Maya Nadia Omar Priya Quentin Rosa Stefan Tamika".split()
LAST = "Abara Berg Castillo Dimitrov Eriksen Farouk Garcia Hansen Ito Jansen Kowalski Lindqvist Mbeki Novak Okafor Patel Rossi Santos Tanaka Weber".split()
COUNTRIES = ["Germany", "Nigeria", "Brazil", "Japan", "India", "Norway", "Kenya", "Spain", "Poland", "Canada"]
STAGES = ["pre-seed", "seed", "series-a", "series-b"]
PREFIX = "Alder Birch Cobalt Delta Ember Fjord Granite Harbor Iris Juniper Kelp Lumen Meadow North Opal Prism Quartz River Solstice Terra".split()

# sector: (name endings, what it builds, for whom, technologies, numbers that matter, obstacles)
SECTORS = {
    "climate": (
        ["Carbon", "Grid", "Solar", "Heat"],
        [
            "a battery that stores wind power for a village",
            "sensors that find methane leaks in gas pipelines",
            "software that forecasts solar output hour by hour",
            "heat pumps for old apartment blocks",
            "a registry of forest carbon measured from satellites",
        ],
        ["utilities", "city councils", "cooperatives of farmers", "owners of large buildings"],
        [
            "lithium iron phosphate cells",
            "infrared imaging",
            "weather models",
            "refrigerants with low warming potential",
            "radar from orbit",
        ],
        ["tonnes of CO2 avoided", "megawatt hours stored", "cost per kilowatt hour", "hectares under observation"],
        [
            "permits take eleven months",
            "the grid operator connects only in spring",
            "subsidies end next year",
            "steel became more expensive",
        ],
    ),
    "health": (
        ["Care", "Bio", "Clinic", "Vital"],
        [
            "a blood test for early kidney disease",
            "an app that reminds patients of their medication",
            "triage for rural clinics by video call",
            "an implant that measures pressure in the eye",
            "wound dressings that show an infection by their colour",
        ],
        ["hospitals", "general practitioners", "insurers", "people with chronic illness"],
        [
            "microfluidic chips",
            "speech recognition for doctors",
            "federated learning on patient records",
            "biocompatible polymers",
            "pulse oximetry",
        ],
        ["patients treated", "readmissions prevented", "minutes from sample to result", "sensitivity of the test"],
        [
            "the clinical trial recruits slowly",
            "regulators ask for a second study",
            "hospitals decide once a year",
            "records are still on paper",
        ],
    ),
    "finance": (
        ["Ledger", "Pay", "Credit", "Coin"],
        [
            "instant payouts for gig workers",
            "bookkeeping that reads receipts by itself",
            "small loans judged by harvest data",
            "an account for families who live in two countries",
            "fraud scoring for card payments",
        ],
        ["freelancers", "small shops", "credit unions", "migrant workers"],
        [
            "open banking interfaces",
            "double-entry ledgers",
            "gradient boosted trees",
            "tokenised deposits",
            "optical character recognition",
        ],
        ["payments per month", "default rate", "share of fraud caught", "cost per transfer"],
        [
            "the licence is limited to one country",
            "partner banks answer slowly",
            "chargebacks rose in summer",
            "capital requirements were raised",
        ],
    ),
    "education": (
        ["Learn", "School", "Tutor", "Campus"],
        [
            "maths exercises that adapt to each pupil",
            "a marketplace for retired teachers",
            "language lessons over voice messages",
            "virtual chemistry laboratories",
            "apprenticeships matched by skill",
        ],
        ["primary schools", "universities", "parents", "employers in the trades"],
        ["knowledge tracing", "speech synthesis", "spaced repetition", "physics simulation in the browser", "item response theory"],
        ["lessons finished", "pupils per teacher", "pass rate", "weekly active classes"],
        ["schools buy only in May", "tablets are shared by three pupils", "teachers fear extra work", "curricula differ by region"],
    ),
    "food": (
        ["Farm", "Kitchen", "Harvest", "Grain"],
        [
            "protein from fermented peas",
            "robots that pick strawberries",
            "cold storage powered by the sun",
            "a menu planner that halves waste in canteens",
            "traceable coffee from smallholders",
        ],
        ["restaurants", "supermarkets", "smallholder farmers", "canteens"],
        ["precision fermentation", "soft grippers", "computer vision", "phase change materials", "QR codes on each sack"],
        ["kilograms of waste avoided", "price per kilogram", "harvest per hour", "farmers paid above market"],
        ["taste tests are mixed", "frost destroyed a third of the crop", "listing fees of supermarkets", "the fermenter is the bottleneck"],
    ),
    "logistics": (
        ["Freight", "Route", "Cargo", "Fleet"],
        [
            "routes for electric delivery vans",
            "customs papers filled in automatically",
            "shared warehouses for small brands",
            "drones that count pallets at night",
            "tracking of containers without power",
        ],
        ["couriers", "importers", "online shops", "port authorities"],
        [
            "vehicle routing solvers",
            "document understanding",
            "low power radio",
            "simultaneous localisation and mapping",
            "satellite messaging",
        ],
        ["parcels per hour", "empty kilometres", "days in customs", "pallets counted per night"],
        ["drivers are scarce", "the port changed its interface", "vans charge too slowly in winter", "fuel cards are still faxed"],
    ),
    "security": (
        ["Shield", "Vault", "Cipher", "Guard"],
        [
            "keys that rotate themselves",
            "phishing drills that do not annoy",
            "an inventory of forgotten cloud accounts",
            "signed builds for small open source projects",
            "passkeys for shared workstations",
        ],
        ["banks", "software teams", "town halls", "hospitals"],
        ["hardware security modules", "transparency logs", "graph search over permissions", "WebAuthn", "reproducible builds"],
        ["secrets rotated", "days until a leak is found", "accounts closed", "share of staff that reports a phish"],
        ["buyers send questionnaires of 300 lines", "legacy systems accept no keys", "auditors want paper", "alerts are ignored at night"],
    ),
    "space": (
        ["Orbit", "Aero", "Stellar", "Launch"],
        [
            "thrusters that run on water",
            "ground stations rented by the minute",
            "a tug that removes dead satellites",
            "crop pictures below one metre",
            "radiation tests for cheap electronics",
        ],
        ["satellite operators", "insurers", "research institutes", "ministries of agriculture"],
        ["resistojets", "phased array antennas", "robotic arms", "synthetic aperture radar", "error correcting memory"],
        ["metres per second of delta-v", "minutes of contact sold", "objects removed", "images delivered per day"],
        [
            "the rocket slipped by two quarters",
            "export papers are pending",
            "frequencies must be coordinated",
            "testing slots are booked out",
        ],
    ),
}
PEOPLE = ["two engineers", "a head of sales", "the first designer", "a data scientist", "an operations lead", "three field technicians"]
MONTHS = "January February March April May June July August September October November December".split()

KINDS = {
    "pitch": "{name} builds {product} for {customer}. Today they have no good choice: {obstacle}. We use {tech} and already reach {number} {metric}. "
    "We raise {money} million to hire {people} and to win ten more {customer} in {country}.",
    "memo": "Decision of {month}: we stop the side project and put everyone on {product}. Why: {customer} pay for it, {metric} grew to {number}, and {tech} is where "
    "we are ahead. The risk we accept: {obstacle}. We look at it again in {later}.",
    "update": "{month} at {name}. The good: {metric} went from {before} to {number}. We hired {people}. The bad: {obstacle}. The plan: finish {tech} and show "
    "{product} to {customer} in {country} before {later}. Runway: {runway} months.",
    "interview": "We talked to {customer} in {country} about {product}. What they liked: {metric} is visible at once. What they missed: an answer to the fact that {obstacle}. "
    "One of them asked whether {tech} could be rented by the month.",
    "note": "Idea after the visit in {month}: combine {tech} with {othertech}. It could bring {metric} to {number} and would help {customer}, even when {obstacle}.",
}
TITLES = {
    "pitch": "{name}: {product}",
    "memo": "Why we focus on {product}",
    "update": "{name}, update for {month}",
    "interview": "Interview: {customer} in {country}",
    "note": "{tech} with {othertech}",
}


def founders():
    for i, first in enumerate(FIRST * 2):
        last = LAST[(i * 7 + i // 20) % 20]
        yield {"email": f"{first}.{last}@founders.example".lower(), "name": f"{first} {last}"}


def startups(rng):
    used = set()
    for i in range(80):
        sector = list(SECTORS)[i % 8]
        endings, products, *_ = SECTORS[sector]
        name = next(n for n in (f"{rng.choice(PREFIX)} {rng.choice(endings)}" for _ in range(999)) if n not in used)
        used.add(name)
        product = products[(i // 8) % 5]
        yield {
            "name": name,
            "sector": sector,
            "owner": i % 40,
            "stage": rng.choice(STAGES),
            "country": rng.choice(COUNTRIES),
            "founded": rng.randint(2014, 2025),
            "summary": f"{name} builds {product}.",
            "product": product,
        }


def documents(rng, companies):
    for i in range(400):
        company = companies[i % 80]
        _, _, customers, tech, metrics, obstacles = SECTORS[company["sector"]]
        kind = list(KINDS)[(i // 80 + i) % 5]
        one, two = rng.sample(tech, 2)
        month = rng.randrange(12)
        before = rng.randint(20, 400)
        words = {
            "name": company["name"],
            "product": company["product"],
            "customer": rng.choice(customers),
            "tech": one,
            "othertech": two,
            "metric": rng.choice(metrics),
            "obstacle": rng.choice(obstacles),
            "country": rng.choice(COUNTRIES),
            "people": rng.choice(PEOPLE),
            "month": MONTHS[month],
            "later": MONTHS[(month + rng.randint(2, 5)) % 12],
            "before": before,
            "number": before + rng.randint(10, 600),
            "money": rng.choice(["0.8", "1.5", "2.4", "4", "7.5"]),
            "runway": rng.randint(5, 24),
        }
        title = TITLES[kind].format(**words)
        yield {
            "startup": i % 80,
            "kind": kind,
            "visibility": "private" if kind in ("memo", "note") else "public",
            "title": title[:1].upper() + title[1:],
            "body": KINDS[kind].format(**words),
        }


def rows():
    rng = random.Random(2014)
    companies = list(startups(rng))
    return {"founders": list(founders()), "startups": companies, "documents": list(documents(rng, companies))}


def main():
    DATA.mkdir(parents=True, exist_ok=True)
    for name, lines in rows().items():
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (DATA / f"{name}.jsonl").write_text(text, encoding="utf-8")
        print(f"{name}: {len(lines)}")


if __name__ == "__main__":
    main()
