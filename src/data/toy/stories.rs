//! The stories, in the language of [`super::grammar`]: who, where and what in tables, nine plots as rules.

use super::grammar::{Rule, Table};

/// The rule that is a whole story.
pub(super) const START: &str = "story";

/// What is drawn once and stays.
pub(super) const TABLES: &[Table] = &[
    ("name", &["name", "he", "him", "his", "himself"], &[
        &["Mia", "she", "her", "her", "herself"], &["Nora", "she", "her", "her", "herself"],
        &["Ivy", "she", "her", "her", "herself"], &["Tess", "she", "her", "her", "herself"],
        &["Wren", "she", "her", "her", "herself"], &["Lulu", "she", "her", "her", "herself"],
        &["Ada", "she", "her", "her", "herself"], &["Olive", "she", "her", "her", "herself"],
        &["Pearl", "she", "her", "her", "herself"], &["Juno", "she", "her", "her", "herself"],
        &["Hazel", "she", "her", "her", "herself"], &["Bea", "she", "her", "her", "herself"],
        &["Tom", "he", "him", "his", "himself"], &["Otto", "he", "him", "his", "himself"],
        &["Finn", "he", "him", "his", "himself"], &["Max", "he", "him", "his", "himself"],
        &["Leo", "he", "him", "his", "himself"], &["Gus", "he", "him", "his", "himself"],
        &["Hugo", "he", "him", "his", "himself"], &["Jasper", "he", "him", "his", "himself"],
        &["Milo", "he", "him", "his", "himself"], &["Ned", "he", "him", "his", "himself"],
        &["Rufus", "he", "him", "his", "himself"], &["Sam", "he", "him", "his", "himself"],
    ]),
    ("kind", &["kind"], &[
        &["fox"], &["hedgehog"], &["rabbit"], &["mouse"], &["badger"], &["squirrel"], &["otter"], &["hare"],
        &["bear cub"], &["mole"], &["beaver"], &["kitten"], &["raccoon"], &["dormouse"], &["puppy"], &["weasel"],
    ]),
    ("trait", &["trait", "end"], &[
        &["shy", "{hero} even laughed out loud, shy as {hero.he} was"],
        &["curious", "{hero} still had a hundred questions"],
        &["proud", "{hero} was a little less proud after that"],
        &["dreamy", "{hero} fell asleep with {hero.his} head full of clouds"],
        &["hasty", "{hero} learned that there is no need to hurry"],
        &["cheerful", "{hero} sang the whole way home"],
        &["grumpy", "{hero} was not grumpy again for nearly a week"],
        &["clever", "{hero} knew now that nobody is clever alone"],
    ]),
    ("place", &["place"], &[
        &["in the old forest"], &["on a green hill"], &["by the sea"], &["at the edge of the marsh"],
        &["under the railway bridge"], &["beside the mill"], &["in a walled garden"], &["behind the bakery"],
        &["near the lighthouse"], &["on an island in the lake"],
    ]),
    ("thing", &["thing"], &[
        &["red kite"], &["silver bell"], &["blue scarf"], &["wooden boat"], &["brass key"], &["woollen hat"],
        &["yellow drum"], &["paper lantern"], &["striped ball"], &["tin whistle"], &["green umbrella"], &["little lamp"],
    ]),
    ("food", &["food", "half"], &[
        &["a plum cake", "half of the cake"], &["a pot of honey", "half of the honey"],
        &["a basket of pears", "half of the pears"], &["warm bread and butter", "half of the bread"],
        &["a bowl of blackberries", "half of the berries"], &["a round cheese", "half of the cheese"],
        &["a bag of hot chestnuts", "half of the chestnuts"], &["pancakes with jam", "half of the pancakes"],
    ]),
    ("stuff", &["stuff"], &[
        &["an old curtain and some string"], &["two spoons and a bit of wire"], &["birch bark and beeswax"],
        &["buttons, glue and patience"], &["feathers and thread"], &["a broken basket"],
    ]),
    ("obstacle", &["where", "fail", "helpers", "deed"], &[
        &["at the very top of a pine tree", "jumped and jumped, but the branch was too high",
          "squirrel;marten;wild cat", "was up the trunk before anyone could count to three"],
        &["at the bottom of the pond", "leaned over the water and only got a wet nose",
          "frog;duck;newt", "dived with a splash and came up laughing"],
        &["deep down a dark hole", "called into the hole, but only an echo answered",
          "mole;badger;rabbit", "dug so fast that the earth flew"],
        &["under a heavy stone", "pushed until {hero.his} legs shook, but the stone stayed where it was",
          "bear;bison;donkey", "rolled the stone away as if it were a pea"],
        &["in the middle of a thorn bush", "reached in and was pricked on the nose",
          "tortoise;hedgehog;porcupine", "walked straight in, for no thorn can hurt {a helper}"],
        &["on a rock in the wild river", "looked at the cold water and did not dare",
          "heron;swan;goose", "flew there and back without one wet feather"],
    ]),
    ("monster", &["monster"], &[
        &["a giant"], &["a ghost"], &["a wolf with long teeth"], &["a dragon"], &["a troll with a sack"], &["a witch on a broom"],
    ]),
    ("noise", &["noise"], &[
        &["tap, tap, tap"], &["scratch, scratch"], &["creak, creak"], &["bump, bump, bump"], &["hoo, hoo"], &["drip, drop"],
    ]),
    ("slow", &["slow"], &[&["snail"], &["tortoise"], &["toad"], &["beetle"], &["caterpillar"]]),
    ("goal", &["goal"], &[
        &["the big oak"], &["the old well"], &["the church door"], &["the stone bridge"], &["the scarecrow"], &["the last fence"],
    ]),
    ("lure", &["lure", "did", "sign"], &[
        &["a patch of ripe strawberries", "ate just one, and then one more", "red juice on {hero.his} chin"],
        &["a butterfly with golden wings", "chased it twice around the field", "grass in {hero.his} ears"],
        &["a soft heap of hay", "lay down for only a minute", "hay all over {hero.his} back"],
        &["a wide brown puddle", "jumped in it until the mud flew", "mud up to {hero.his} knees"],
        &["a puppet show", "stayed until the puppets bowed", "a paper crown on {hero.his} head"],
    ]),
    ("plant", &["plant", "use"], &[
        &["sunflower", "in autumn the birds ate from it until they could hardly fly"],
        &["pumpkin", "in autumn it made soup for everyone in the valley"],
        &["cherry tree", "every summer its branches were full of guests"],
        &["rose bush", "every June the bees came from three villages"],
        &["beanstalk", "whoever climbed it could see the next town"],
        &["willow", "its branches made the best hiding place of all"],
    ]),
    ("soup", &["soup", "item"], &[
        &["carrot soup", "carrot"], &["onion soup", "onion"], &["mushroom stew", "mushroom"], &["pea soup", "pea"],
        &["turnip stew", "turnip"], &["potato soup", "potato"],
    ]),
    ("job", &["job", "tool"], &[
        &["paint the fence", "brush"], &["sweep the chimney", "broom"], &["rake the leaves", "rake"],
        &["dig the potatoes", "spade"], &["mend the net", "needle"], &["saw the wood", "saw"],
    ]),
];

/// The templates. Each alternative of a choice must differ from the others before it ends.
pub(super) const RULES: &[Rule] = &[
    ("story", "<hero> [6*<day> [<lost>|<race>|<seed>|<soup>|<job>|<map>]|<gift>|<night>|<storm>]"),
    ("hero",
     "[2*Once there was {a trait=trait} {kind=kind} called {hero=name}, who lived {place=place}.\
      |2*{Hero=name} was {a trait=trait} {kind=kind} and lived {place=place}.\
      |{Place=place} there lived {a trait=trait} {kind=kind} by the name of {hero=name}.\
      |This is the story of {hero=name}, {a trait=trait} {kind=kind} who lived {place=place}.]"),
    ("day", "[3*One morning|One windy afternoon|One Sunday|Early in spring|On a day of soft rain|When the holidays began]"),
    ("said", "[3*said|called|answered]"),
    ("close", "[And so|That was how it ended:|Everyone was happy, and] {trait.end}."),
    ("lost",
     "{hero} [went out to play with|was showing everyone|took a walk with] {hero.his} {thing=thing}<off> \
      It [came down|landed|ended up] {obstacle=obstacle}. {Hero} {obstacle.fail}. \
      [Then|Just then|After a while] along came {a helper=obstacle.helpers} called {friend=name!hero}. \
      \"[Why so sad|What is the matter|Why the long face], {hero}?\" asked {friend}. \
      \"My {thing} is {obstacle}!\" [2*said|cried|sobbed] {hero}. \
      \"[Leave it to me,|Oh, is that all?|Let me try,]\" said {friend}, and {friend.he} {obstacle.deed}. \
      Soon {hero} held the {thing} again. \
      [To say thank you, {hero}|One good turn deserves another, so {hero}|That evening {hero}] \
      shared {food=food} with {friend}, and {trait.end}."),
    ("off",
     "[, but a gust of wind carried it away.| when it slipped out of {hero.his} paws.\
      |, but a magpie snatched it, grew tired of it and let it fall.]"),
    ("gift",
     "The next day was the birthday of {friend=name!hero}, the {other=kind!kind} from next door. \
      {Hero} wanted to bring {friend.him} something, but {hero.his} pockets were \
      [empty|full of crumbs and nothing else|bare except for one button]. \
      So {hero.he} [sat down|stayed up all night|went into the shed] and made {a thing=thing} out of {stuff=stuff}. \
      On the doorstep {hero} was suddenly afraid. \
      \"[It is a little crooked|Perhaps nobody will like it|The others have bought theirs in a shop],\" {hero.he} thought. \
      {Friend} unwrapped the {thing}, [turned it round and round|held it up to the light|went very quiet] and said, \
      \"[Nobody ever made me {a thing} before|I have wished for {a thing} all year|This is the best present of them all].\" \
      For years the {thing} stood [on the shelf above the bed|in the window|next to the clock]. <close>"),
    ("night",
     "One night {hero} woke up. Something outside went {noise=noise}. \
      {Hero} [pulled the blanket over {hero.his} ears|hid under the bed|held {hero.his} breath], \
      but there it was again: {noise}! \"It must be {monster=monster},\" {hero.he} thought. \
      At last {hero.he} took {hero.his} {thing=thing} in one paw and opened the door. There stood {a other=kind!kind}, \
      [wet to the bone|shaking with cold|covered in leaves|small and tired]. \
      \"[I am so sorry|Please do not be afraid|Good evening],\" said the {other}. \"My name is {friend=name!hero}, and I \
      [have lost my way|saw a light in your window|cannot sleep in the dark|smelled your supper].\" \
      {Hero} [began to laugh|took a deep breath|felt very silly]. \"And I thought you were {monster}!\" {hero.he} said, and \
      put {food=food} on the table. They talked until the sun came up. \
      Since then {friend} [always knocks three times|never goes out without a lantern|comes to supper every week], \
      and {trait.end}."),
    ("race",
     "{hero} met {friend=name!hero}, {a slow=slow}. \"[I bet|Everybody knows] that I am faster than you,\" said {hero}. \
      \"[Maybe|We shall see|I would not be so sure],\" said the {slow}, and so they raced to {goal=goal}. \
      {Hero} [shot away like an arrow|was out of sight at once|ran so fast that {hero.his} ears flapped]. \
      But half way there was {lure=lure}, and {hero} {lure.did}. {Friend} \
      [went on, step by step|did not look left or right|hummed a tune and kept going]. \
      When {hero} came to {goal} at last, with {lure.sign}, {friend} was \
      [sitting there already|waiting with a smile|asleep in the shade]. \
      \"How did you do that?\" asked {hero}. \"I [only kept going|took one more step, again and again|thought of nothing but \
      {goal}],\" <said> {friend}. {Hero} [bowed low|had to laugh at {hero.himself}|shook the winner's hand]. [That evening|In the end|Before night] {trait.end}."),
    ("storm",
     "One night a storm [tore|ripped|blew] the roof off the house of {friend=name!hero}, the {other=kind!kind} across the road. \
      {Friend} [stood in the rain|sat on the wet steps|knocked at one door after another], with nothing left but {a thing=thing}. \
      {Hero} had only one [bed|chair|blanket] and one spoon. \"[It will be too small for two,|What will we eat?|Perhaps somebody \
      else will help,]\" {hero.he} thought for a moment. Then {hero.he} opened the door. \"Come in, {friend}! \
      We will take turns with the spoon.\" They ate {food=food} and listened to the [wind|thunder|rain]. \
      In the morning they [fetched a ladder|borrowed a hammer|called the neighbours] and made a new roof out of {stuff=stuff}. \
      {Friend} hung the {thing} over {hero}'s door, [so that nobody could miss it|for luck|as a thank you]. <close>"),
    ("seed",
     "{hero} found a seed, [as small as a flea|as round as a drop|as black as a boot]. {Hero.he} planted it \
      [beside the door|under the window|next to the fence] and watered it [every morning|with a thimble|whenever {hero.he} walked by]. \
      The first day nothing happened. The second day nothing happened either. \
      \"[Grow!|Hurry up!|What are you waiting for?]\" said {hero} to the ground. {Friend=name!hero}, an old {other=kind!kind}, looked \
      over the fence. \"[A seed has no clock|You cannot pull it up by shouting|Good things sleep first],\" {friend.he} said. \
      So {hero} [waited|sat down and waited|counted clouds]. After [a week|ten days|half a month] there was a green tip, \
      and in the end it was {a plant=plant}. \"[Look|Come quickly|I did it], {friend}!\" cried {hero}. \
      {Friend} [smiled|nodded|clapped]. Nobody was ever sorry about the {plant}: {plant.use}, and {trait.end}."),
    ("soup",
     "{hero} wanted to cook {soup=soup}. The pot was on the fire and the water was hot, but there was not one {soup.item} \
      in the house. So {hero.he} ran to {friend=name!hero}, the {other=kind!kind} [down the lane|on the corner|behind the hedge]. \
      \"[May I have|Can you lend me|Do you have] {a soup.item}?\" asked {hero}. \"I have a whole sack,\" <said> {friend}, \"but \
      [my pot has a hole|my fire went out|I am too sad to cook for one].\" They looked at each other. \
      \"[Bring your sack!|Then come with me!|Why did we not think of it before?]\" said {hero}. They [peeled|chopped|stirred] and \
      [sang|told jokes|burned their tongues], and the {soup} was the best that {hero} and {friend} had ever eaten. \
      Now they cook together every [Monday|Friday|Saturday]. <close>"),
    ("job",
     "{hero} had to {job=job}, and {hero.he} did not want to. {Friend=name!hero}, {a other=kind!kind}, came by on the way \
      [to the fair|to the beach|to a picnic]. {Hero} [whistled|smiled|hummed] as if nothing could be nicer. \
      \"Must you {job}?\" asked {friend}. \"Must I?\" <said> {hero}. \"It is not every day that one may {job}!\" \
      \"[Let me have the {job.tool}, please,|Oh, let me try,|Only once, {hero},]\" begged {friend}, who gave {hero.him} {food=food} for it. By noon [the work was done|everything shone|there was nothing \
      left to do], and {friend} was proud and tired. Then {hero} was ashamed. \"[I played a trick on you|It was my work, not \
      yours],\" {hero.he} said, and gave {friend.him} back {food.half}. {Friend} only laughed and \
      [kept the {job.tool} as a prize|asked for more work|ate it with {hero}], and {trait.end}."),
    ("map",
     "{hero} found a map [in an old boot|inside a loaf of bread|behind a loose brick]. It showed a cross \
      {obstacle=obstacle}. {Hero} went there and {obstacle.fail}. \"[I need help|This is no work for one|I give up],\" \
      {hero.he} [sighed|said|grumbled], and [fetched|asked|woke] {friend=name!hero}, {a helper=obstacle.helpers}. {Friend} did not \
      ask for [money|a share|reasons]; {friend.he} {obstacle.deed}. And there it was, a box! It was [green with moss|heavy|locked \
      with three locks]. In the box lay [only|nothing but] a note: \"The treasure is whoever came with you.\" \
      {Hero} [read it twice|turned the box upside down|looked at {friend} for a long time]. Then they used the box as a table, \
      ate {food=food} on it, and {trait.end}."),
];
